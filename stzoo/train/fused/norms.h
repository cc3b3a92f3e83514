// BatchNorm with the residual sums around it, and GroupNorm with SiLU. Rows are pixels: (M, C), or (N, H * W, C).
#pragma once
#include <omp.h>

#include <vector>

#include "plane.h"

// Two sums for each channel over the rows of all threads: in float32 over 256 rows of a thread, in float64 beyond.
class Sums {
  int C, threads = 1;
  Scratch rows;
  std::vector<double> totals;

 public:
  explicit Sums(int C)
      : C(C), rows((size_t)2 * C * omp_get_max_threads()), totals((size_t)2 * C * omp_get_max_threads()) {}

  // Calls row(m, sums) for the calling thread's share of M rows; it adds to sums, (2, C).
  template <class F>
  INLINE void over(int M, F row) {
    int n = omp_get_num_threads(), t = omp_get_thread_num();
    int end = (long)M * (t + 1) / n;
    float* sums = rows.at + (size_t)t * 2 * C;
    double* total = totals.data() + (size_t)t * 2 * C;
    if (t == 0) threads = n;
    for (int m = (long)M * t / n; m < end;) {
      for (int stop = m + 256 < end ? m + 256 : end; m < stop; m++) row(m, sums);
      for (int c = 0; c < 2 * C; c++) total[c] += sums[c];
      memset(sums, 0, sizeof(float) * 2 * C);
    }
  }
  // The sum of channel c of the first or the second kind, once all threads are done.
  double of(int kind, int c) const {
    double sum = 0;
    for (int t = 0; t < threads; t++) sum += totals[(size_t)t * 2 * C + kind * C + c];
    return sum;
  }
};

// The factor of an image's residual branch in row m. None is 1.
static INLINE float kept(const float* keep, int m) { return keep ? keep[m / PIXELS] : 1.f; }

// y + yb (+ a) at o, of channel c: the output of a branch whose last product is y, and what it skips.
static INLINE vec branch(const stored* y, const float* yb, const stored* a, size_t o, int c) {
  vec v = load(y + o) + load(yb + c);
  return a ? v + load(a + o) : v;
}

// Where an image's pixel lies, in front of the normalisation, and behind it: with up > 1, up x up pixels lie one after
// another in front, in the place of one.
struct Pixels {
  int H, W, up;
  template <class F>
  INLINE void each(F f) const {
    if (up == 1) {
      for (int p = 0; p < H * W; p++) f((size_t)p, (size_t)p);
      return;
    }
    size_t in = 0;
    for (int h = 0; h < H; h += up)
      for (int w = 0; w < W; w += up)
        for (int dy = 0; dy < up; dy++)
          for (int dx = 0; dx < up; dx++) f(in++, (size_t)(h + dy) * W + w + dx);
  }
};

extern "C" {
// xn = x + keep * s * (y + yb + a) where there is a y, else x; out = BatchNorm(xn), by the batch's mean and variance,
// which are returned, or by given ones if it is `frozen`.
void bn_fwd(const float* x, const stored* y, const float* yb, const stored* a, const float* s, const float* keep,
            const float* w, const float* bb, float* xn, stored* out, float* mean, float* var, int M, int C, float eps,
            int frozen) {
  Sums sums(C);
  Scratch room((size_t)2 * C);
  float *scale = room.at, *shift = scale + C;
#pragma omp parallel
  {
    sums.over(M, [&](int m, float* q) {
      float k = kept(keep, m);
      for (int c = 0; c < C; c += LANES) {
        size_t o = (size_t)m * C + c;
        vec v = load(x + o);
        if (y) {
          v += k * load(s + c) * branch(y, yb, a, o, c);
          store(xn + o, v);
        }
        v -= load(x + c);  // of about the same mean, so that squares lose nothing
        store(q + c, load(q + c) + v);
        store(q + C + c, load(q + C + c) + v * v);
      }
    });
#pragma omp barrier
#pragma omp single
    for (int c = 0; c < C; c++) {
      if (!frozen) {
        double m = sums.of(0, c) / M, v = sums.of(1, c) / M - m * m;
        mean[c] = m + x[c];
        var[c] = v < 0 ? 0 : v;
      }
      scale[c] = w[c] / std::sqrt(var[c] + eps);
      shift[c] = bb[c] - mean[c] * scale[c];
    }
    const float* src = y ? xn : x;
#pragma omp for schedule(static)
    for (int m = 0; m < M; m++)
      for (int c = 0; c < C; c += LANES) {
        size_t o = (size_t)m * C + c;
        store(out + o, load(src + o) * load(scale + c) + load(shift + c));
      }
  }
}

// gA (+ gA2): gradient of BatchNorm's output. gX: gradient of xn by the residual path. gsum: the sum of gy.
void bn_bwd(const stored* gA, const stored* gA2, const float* gX, const float* xn, const float* mean, const float* var,
            const float* w, const stored* y, const float* yb, const stored* a, const float* s, const float* keep,
            float* gx, stored* gy, float* gw, float* gb, float* gs, float* gsum, int M, int C, float eps, int frozen) {
  Sums normal(C), residual(C);
  Scratch room((size_t)4 * C);
  float *r = room.at, *shift = r + C, *c1 = shift + C, *c2 = c1 + C;
  for (int c = 0; c < C; c++) {
    r[c] = 1 / std::sqrt(var[c] + eps);
    shift[c] = -mean[c] * r[c];
  }
  auto gradient = [&](size_t o) { return gA2 ? load(gA + o) + load(gA2 + o) : load(gA + o); };
#pragma omp parallel
  {
    normal.over(M, [&](int m, float* q) {
      for (int c = 0; c < C; c += LANES) {
        size_t o = (size_t)m * C + c;
        vec g = gradient(o), h = load(xn + o) * load(r + c) + load(shift + c);
        store(q + c, load(q + c) + g);
        store(q + C + c, load(q + C + c) + g * h);
      }
    });
#pragma omp barrier
#pragma omp single
    for (int c = 0; c < C; c++) {
      double u = normal.of(0, c), v = normal.of(1, c);
      gb[c] = u;
      gw[c] = v;
      c1[c] = frozen ? 0 : u / M;
      c2[c] = frozen ? 0 : v / M;
    }
    residual.over(M, [&](int m, float* q) {
      float k = kept(keep, m);
      for (int c = 0; c < C; c += LANES) {
        size_t o = (size_t)m * C + c;
        vec h = load(xn + o) * load(r + c) + load(shift + c);
        vec v = gradient(o) - load(c1 + c) - h * load(c2 + c);
        v = v * (load(r + c) * load(w + c)) + load(gX + o);
        store(gx + o, v);
        if (!y) continue;
        v *= k;
        store(q + c, load(q + c) + v * branch(y, yb, a, o, c));
        v *= load(s + c);
        store(gy + o, v);
        store(q + C + c, load(q + C + c) + v);
      }
    });
#pragma omp barrier
#pragma omp single
    for (int c = 0; c < C && y; c++) {
      gs[c] = residual.of(0, c);
      gsum[c] = residual.of(1, c);
    }
  }
}

// The last sum of a block: x + keep * s * (y + yb).
void res_fwd(const float* x, const stored* y, const float* yb, const float* s, const float* keep, float* out, int M,
             int C) {
#pragma omp parallel for schedule(static)
  for (int m = 0; m < M; m++) {
    float k = kept(keep, m);
    for (int c = 0; c < C; c += LANES) {
      size_t o = (size_t)m * C + c;
      store(out + o, load(x + o) + k * load(s + c) * branch(y, yb, nullptr, o, c));
    }
  }
}

void res_bwd(const float* gX, const stored* y, const float* yb, const float* s, const float* keep, stored* gy,
             float* gs, float* gsum, int M, int C) {
  Sums sums(C);
#pragma omp parallel
  sums.over(M, [&](int m, float* q) {
    float k = kept(keep, m);
    for (int c = 0; c < C; c += LANES) {
      size_t o = (size_t)m * C + c;
      vec v = load(gX + o) * k;
      store(q + c, load(q + c) + v * branch(y, yb, nullptr, o, c));
      v *= load(s + c);
      store(gy + o, v);
      store(q + C + c, load(q + C + c) + v);
    }
  });
  for (int c = 0; c < C; c++) {
    gs[c] = sums.of(0, c);
    gsum[c] = sums.of(1, c);
  }
}

// out = SiLU(GroupNorm(2)(y)) of N images, which have H x W pixels behind it; moments (N, 4) keeps mean and inverse
// deviation of both groups.
void gn_fwd(const stored* y, const float* w, const float* bb, stored* out, float* moments, int N, int H, int W, int up,
            int C, float eps) {
  Pixels pixels{H, W, up};
#pragma omp parallel
  {
    Scratch room((size_t)4 * C);
    float *sum = room.at, *square = sum + C, *scale = square + C, *shift = scale + C;
#pragma omp for schedule(static)
    for (int n = 0; n < N; n++) {
      const stored* Y = y + (size_t)n * H * W * C;
      stored* O = out + (size_t)n * H * W * C;
      for (int c = 0; c < C; c += LANES) {
        vec a{}, b{}, first = load(Y + c);  // of about the same mean, so that squares lose nothing
        for (int p = 0; p < H * W; p++) {
          vec v = load(Y + (size_t)p * C + c) - first;
          a += v;
          b += v * v;
        }
        store(sum + c, a);
        store(square + c, b);
        store(shift + c, first);
      }
      for (int g = 0; g < 2; g++) {
        double m = 0, v = 0, count = (double)H * W * C / 2;
        for (int c = g * C / 2; c < (g + 1) * C / 2; c++) m += sum[c] / count + (double)shift[c] * 2 / C;
        for (int c = g * C / 2; c < (g + 1) * C / 2; c++) {
          double away = shift[c] - m;
          v += (square[c] + 2 * away * sum[c]) / count + away * away * 2 / C;
        }
        float r = 1 / std::sqrt((v < 0 ? 0 : v) + eps);
        moments[n * 4 + g * 2] = m;
        moments[n * 4 + g * 2 + 1] = r;
        for (int c = g * C / 2; c < (g + 1) * C / 2; c++) {
          scale[c] = r * w[c];
          shift[c] = bb[c] - m * scale[c];
        }
      }
      for (int c = 0; c < C; c += LANES) {
        vec a = load(scale + c), b = load(shift + c);
        pixels.each([&](size_t from, size_t to) {
          vec z = load(Y + from * C + c) * a + b;
          store(O + to * C + c, z * sigmoid(z));
        });
      }
    }
  }
}

// gw, gb: (N, C), to be summed over images.
void gn_bwd(const stored* y, const stored* go, const float* w, const float* bb, const float* moments, stored* gy,
            float* gw, float* gb, int N, int H, int W, int up, int C) {
  Pixels pixels{H, W, up};
#pragma omp parallel
  {
    Scratch room((size_t)4 * C);
    float *r = room.at, *shift = r + C, *c1 = shift + C, *c2 = c1 + C;
#pragma omp for schedule(static)
    for (int n = 0; n < N; n++) {
      const stored *Y = y + (size_t)n * H * W * C, *G = go + (size_t)n * H * W * C;
      stored* O = gy + (size_t)n * H * W * C;
      float *by_weight = gw + (size_t)n * C, *by_bias = gb + (size_t)n * C;
      for (int c = 0; c < C; c++) {
        int g = c >= C / 2;
        r[c] = moments[n * 4 + g * 2 + 1];
        shift[c] = -moments[n * 4 + g * 2] * r[c];
      }
      for (int c = 0; c < C; c += LANES) {
        vec a{}, b{}, scale = load(r + c), add = load(shift + c), weight = load(w + c), bias = load(bb + c);
        pixels.each([&](size_t from, size_t to) {
          vec h = load(Y + from * C + c) * scale + add, z = h * weight + bias, s = sigmoid(z);
          vec d = load(G + to * C + c) * (s * (z * (1.f - s) + 1.f));
          store(O + from * C + c, d);
          a += d;
          b += d * h;
        });
        store(by_bias + c, a);
        store(by_weight + c, b);
      }
      for (int g = 0; g < 2; g++) {
        double u = 0, v = 0, count = (double)H * W * C / 2;
        for (int c = g * C / 2; c < (g + 1) * C / 2; c++) {
          u += by_bias[c] * w[c];
          v += by_weight[c] * w[c];
        }
        for (int c = g * C / 2; c < (g + 1) * C / 2; c++) {
          c1[c] = u / count;
          c2[c] = v / count;
        }
      }
      for (int c = 0; c < C; c += LANES) {
        vec scale = load(r + c), add = load(shift + c), weight = load(w + c), k1 = load(c1 + c), k2 = load(c2 + c);
        for (int p = 0; p < H * W; p++) {
          size_t o = (size_t)p * C + c;
          vec h = load(Y + o) * scale + add;
          store(O + o, scale * (load(O + o) * weight - k1 - h * k2));
        }
      }
    }
  }
}
}
