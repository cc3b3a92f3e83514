// What lies between the matrix products of a block's two branches. Arrays are (batch, PIXELS, C) unless said. Products
// come without their biases, which are added where they are read.
#pragma once
#include <omp.h>

#include "plane.h"

extern "C" {
// u = gelu(p + pb), e = depthwise 7x7 (dilation 3) of depthwise 5x5 of u, q = mean of u over pixels (batch, C).
// Any of u, e and q may be null.
void gate_fwd(const stored* p, const float* pb, const float* w5, const float* b5, const float* w7, const float* b7,
              stored* u, stored* e, float* q, int B, int C) {
#pragma omp parallel
  {
    Scratch room((size_t)(PARTS + 1) * PLANE + (25 + 49) * LANES);
    float *planes = room.at, *t = planes + PARTS * PLANE, *l5 = t + PLANE, *l7 = l5 + 25 * LANES;
#pragma omp for collapse(2) schedule(static)
    for (int c0 = 0; c0 < C; c0 += CHUNK)
      for (int b = 0; b < B; b++) {
        load_planes<false>(p + (size_t)b * PIXELS * C + c0, pb + c0, C, planes);
        for (int j = 0; j < PARTS; j++) {
          int c = c0 + j * LANES;
          size_t o = (size_t)b * PIXELS * C + c;
          float* s = planes + j * PLANE;
          vec sum{};
          for (int i = 0; i < PIXELS; i++) {
            vec v = gelu(load(s + i * LANES));
            store(s + i * LANES, v);
            sum += v;
            if (u) store(u + o + (size_t)i * C, v);
          }
          if (q) store(q + (size_t)b * C + c, sum * (1.f / PIXELS));
          if (!e) continue;
          load_taps<5>(w5 + c, C, l5);
          load_taps<7>(w7 + c, C, l7);
          convolve<5, 1, false>(s, l5, load(b5 + c), t);
          vec bias = load(b7 + c);
          for (int h = 0; h < HEIGHT; h++)
            convolve_row<7, 3, false>(t, l7, h,
                                      [&](int i, vec v) { store(e + o + (size_t)i * C, v + bias); });
        }
      }
  }
}

// From the gradients ge of e, gu of u by its other use, and gq of q, any of which may be null: gp, those of taps and
// biases, and the sum of gp. The 5x5 convolution is computed again instead of having been kept.
void gate_bwd(const stored* p, const float* pb, const stored* ge, const stored* gu, const float* gq, const float* w5,
              const float* b5, const float* w7, stored* gp, float* gw5, float* gb5, float* gw7, float* gb7, float* gpb,
              int B, int C) {
#pragma omp parallel
  {
    constexpr int TAPS = 25 + 49;
    Scratch room((size_t)(2 * PARTS + 3) * PLANE + 2 * PARTS * TAPS * LANES);
    float *planes = room.at, *gradients = planes + PARTS * PLANE, *t = gradients + PARTS * PLANE, *t2 = t + PLANE;
    float *slopes = t2 + PLANE, *taps = slopes + PLANE, *sums = taps + PARTS * TAPS * LANES;
#pragma omp for schedule(static)
    for (int c0 = 0; c0 < C; c0 += CHUNK) {
      memset(sums, 0, sizeof(float) * PARTS * TAPS * LANES);
      vec s5[PARTS] = {}, s7[PARTS] = {}, sp[PARTS] = {};
      for (int j = 0; j < PARTS && ge; j++) {
        load_taps<5>(w5 + c0 + j * LANES, C, taps + j * TAPS * LANES);
        load_taps<7>(w7 + c0 + j * LANES, C, taps + (j * TAPS + 25) * LANES);
      }
      for (int b = 0; b < B; b++) {
        load_planes<false>(p + (size_t)b * PIXELS * C + c0, pb + c0, C, planes);
        if (ge) load_planes<false>(ge + (size_t)b * PIXELS * C + c0, nullptr, C, gradients);
        for (int j = 0; j < PARTS; j++) {
          int c = c0 + j * LANES;
          size_t o = (size_t)b * PIXELS * C + c;
          float *s = planes + j * PLANE, *g = gradients + j * PLANE;
          const float *l5 = taps + j * TAPS * LANES, *l7 = l5 + 25 * LANES;
          float *a5 = sums + j * TAPS * LANES, *a7 = a5 + 25 * LANES;
          for (int i = 0; i < PIXELS; i++) {
            vec y, slope;
            gelu_and_slope(load(s + i * LANES), y, slope);
            store(s + i * LANES, y);
            store(slopes + i * LANES, slope);
          }
          vec q = gq ? load(gq + (size_t)b * C + c) * (1.f / PIXELS) : vec{};
          auto finish = [&](int i, vec v) {
            v += q;
            if (gu) v += load(gu + o + (size_t)i * C);
            v *= load(slopes + i * LANES);
            sp[j] += v;
            store(gp + o + (size_t)i * C, v);
          };
          if (!ge) {
            for (int i = 0; i < PIXELS; i++) finish(i, vec{});
            continue;
          }
          for (int i = 0; i < PIXELS; i++) s7[j] += load(g + i * LANES);
          convolve<5, 1, false>(s, l5, load(b5 + c), t);
          tap_gradients<7, 3, 1>(t, g, a7);
          convolve<7, 3, true>(g, l7, vec{}, t2);  // the gradient of the 5x5 convolution's output
          for (int i = 0; i < PIXELS; i++) s5[j] += load(t2 + i * LANES);
          tap_gradients<5, 1, 1>(s, t2, a5);
          for (int h = 0; h < HEIGHT; h++) convolve_row<5, 1, true>(t2, l5, h, finish);
        }
      }
      for (int j = 0; j < PARTS; j++) {
        int c = c0 + j * LANES;
        store(gpb + c, sp[j]);
        if (!ge) continue;
        store_taps<5>(sums + j * TAPS * LANES, C, gw5 + c);
        store_taps<7>(sums + (j * TAPS + 25) * LANES, C, gw7 + c);
        store(gb5 + c, s5[j]);
        store(gb7 + c, s7[j]);
      }
    }
  }
}

// y = gelu(depthwise 3x3 of (p + pb)): the middle of the MLP.
void mid_fwd(const stored* p, const float* pb, const float* w, const float* bias, stored* y, int B, int C) {
#pragma omp parallel
  {
    Scratch room((size_t)PARTS * (PLANE + WIDTH * LANES + 9 * LANES));
    float *planes = room.at, *row = planes + PARTS * PLANE, *taps = row + PARTS * WIDTH * LANES;
#pragma omp for collapse(2) schedule(static)
    for (int b = 0; b < B; b++)
      for (int c0 = 0; c0 < C; c0 += CHUNK) {
        size_t o = (size_t)b * PIXELS * C + c0;
        load_planes<true>(p + o, pb + c0, C, planes);
        for (int j = 0; j < PARTS; j++) load_taps<3>(w + c0 + j * LANES, C, taps + j * 9 * LANES);
        for (int h = 0; h < HEIGHT; h++) {
          for (int j = 0; j < PARTS; j++) {
            vec add = load(bias + c0 + j * LANES);
            convolve_row<3, 1, false>(planes + j * PLANE, taps + j * 9 * LANES, h, [&](int i, vec v) {
              store(row + ((i - h * WIDTH) * PARTS + j) * LANES, v + add);
            });
          }
          for (int i = 0; i < WIDTH; i++)  // whole lines of the cache at a time
#pragma GCC unroll 8
            for (int j = 0; j < PARTS; j++)
              store(y + o + (size_t)(h * WIDTH + i) * C + j * LANES, gelu(load(row + (i * PARTS + j) * LANES)));
        }
      }
  }
}

void mid_bwd(const stored* p, const float* pb, const stored* gy, const float* w, const float* bias, stored* gp,
             float* gw, float* gb, float* gpb, int B, int C) {
  size_t each = (size_t)11 * C;  // of a thread: nine taps and two biases
  Scratch all(each * omp_get_max_threads());
  int threads = 1;
#pragma omp parallel
  {
#pragma omp single
    threads = omp_get_num_threads();
    float *A = all.at + omp_get_thread_num() * each, *sb = A + (size_t)9 * C, *sp = sb + C;
    Scratch room((size_t)2 * PARTS * PLANE + 9 * LANES);
    float *planes = room.at, *gradients = planes + PARTS * PLANE, *taps = gradients + PARTS * PLANE;
#pragma omp for collapse(2) schedule(static)
    for (int b = 0; b < B; b++)
      for (int c0 = 0; c0 < C; c0 += CHUNK) {
        size_t o = (size_t)b * PIXELS * C + c0;
        load_planes<true>(p + o, pb + c0, C, planes);
        load_planes<true>(gy + o, nullptr, C, gradients);
        for (int j = 0; j < PARTS; j++) {
          int c = c0 + j * LANES;
          float *s = planes + j * PLANE, *g = gradients + j * PLANE;
          load_taps<3>(w + c, C, taps);
          vec add = load(bias + c), sum_b = load(sb + c), sum_p = load(sp + c);
          for (int h = 0; h < HEIGHT; h++)
            convolve_row<3, 1, false>(s, taps, h, [&](int i, vec v) {
              vec y, slope;
              gelu_and_slope(v + add, y, slope);
              slope *= load(g + i * LANES);
              store(g + i * LANES, slope);
              sum_b += slope;
            });
          tap_gradients<3, 1, 3>(s, g, A + (size_t)9 * c);
          for (int h = 0; h < HEIGHT; h++)
            convolve_row<3, 1, true>(g, taps, h, [&](int i, vec v) {
              sum_p += v;
              store(s + i * LANES, v);
            });
          store(sb + c, sum_b);
          store(sp + c, sum_p);
        }
        for (int i = 0; i < PIXELS; i++)
#pragma GCC unroll 8
          for (int j = 0; j < PARTS; j++)
            store(gp + o + (size_t)i * C + j * LANES, load(planes + j * PLANE + i * LANES));
      }
  }
  float* A = all.at;
  for (int k = 1; k < threads; k++)
    for (size_t i = 0; i < each; i++) A[i] += A[k * each + i];
  for (int c = 0; c < C; c += LANES) store_taps<3>(A + (size_t)9 * c, C, gw + c);
  memcpy(gb, A + (size_t)9 * C, sizeof(float) * C);
  memcpy(gpb, A + (size_t)10 * C, sizeof(float) * C);
}

// TAU's gate: g = sig * (st + sb) * u. sig is one value per image and channel (batch, C). An attention that is null
// multiplies by one.
void mul_fwd(const stored* st, const float* sb, const stored* u, const float* sig, stored* g, int B, int C) {
#pragma omp parallel for collapse(2) schedule(static)
  for (int b = 0; b < B; b++)
    for (int i = 0; i < PIXELS; i++) {
      size_t o = ((size_t)b * PIXELS + i) * C;
      for (int c = 0; c < C; c += LANES) {
        vec v = load(u + o + c);
        if (st) v *= load(st + o + c) + load(sb + c);
        if (sig) v *= load(sig + (size_t)b * C + c);
        store(g + o + c, v);
      }
    }
}

// gsig and gsb are (batch, C), those of an attention that is null are not written; gsb is to be summed over the batch.
void mul_bwd(const stored* gg, const stored* st, const float* sb, const stored* u, const float* sig, stored* gst,
             stored* gu, float* gsig, float* gsb, int B, int C) {
#pragma omp parallel for collapse(2) schedule(static)
  for (int b = 0; b < B; b++)
    for (int c0 = 0; c0 < C; c0 += CHUNK) {
      vec by_sig[PARTS] = {}, by_bias[PARTS] = {}, factor[PARTS], bias[PARTS];
#pragma GCC unroll 8
      for (int j = 0; j < PARTS; j++) {
        factor[j] = sig ? load(sig + (size_t)b * C + c0 + j * LANES) : splat(1.f);
        bias[j] = st ? load(sb + c0 + j * LANES) : splat(1.f);
      }
      for (int i = 0; i < PIXELS; i++) {
        size_t o = ((size_t)b * PIXELS + i) * C + c0;
#pragma GCC unroll 8
        for (int j = 0; j < PARTS; j++) {
          vec g = load(gg + o + j * LANES), x = load(u + o + j * LANES), a = bias[j];
          if (st) a += load(st + o + j * LANES);
          by_sig[j] += g * (a * x);
          g *= factor[j];
          store(gu + o + j * LANES, g * a);
          if (!st) continue;
          g *= x;
          by_bias[j] += g;
          store(gst + o + j * LANES, g);
        }
      }
#pragma GCC unroll 8
      for (int j = 0; j < PARTS; j++) {
        if (sig) store(gsig + (size_t)b * C + c0 + j * LANES, by_sig[j]);
        if (st) store(gsb + (size_t)b * C + c0 + j * LANES, by_bias[j]);
      }
    }
}

// gSTA's gate: g = value * sigmoid(gate), the halves of (st + sb), which is (batch, PIXELS, 2 * C).
void glu_fwd(const stored* st, const float* sb, stored* g, int B, int C) {
#pragma omp parallel for schedule(static)
  for (int m = 0; m < B * PIXELS; m++) {
    const stored* s = st + (size_t)m * 2 * C;
    for (int c = 0; c < C; c += LANES)
      store(g + (size_t)m * C + c, (load(s + c) + load(sb + c)) * sigmoid(load(s + C + c) + load(sb + C + c)));
  }
}

// gsb: (batch, 2 * C), to be summed over the batch.
void glu_bwd(const stored* gg, const stored* st, const float* sb, stored* gst, float* gsb, int B, int C) {
#pragma omp parallel for collapse(2) schedule(static)
  for (int b = 0; b < B; b++)
    for (int c0 = 0; c0 < C; c0 += CHUNK) {
      vec by_value[PARTS] = {}, by_gate[PARTS] = {};
      for (int i = 0; i < PIXELS; i++) {
        size_t m = (size_t)b * PIXELS + i;
#pragma GCC unroll 8
        for (int j = 0; j < PARTS; j++) {
          int c = c0 + j * LANES;
          size_t o = m * 2 * C + c;
          vec s = sigmoid(load(st + o + C) + load(sb + C + c));
          vec value = load(gg + m * C + c) * s, gate = value * (1.f - s) * (load(st + o) + load(sb + c));
          store(gst + o, value);
          store(gst + o + C, gate);
          by_value[j] += value;
          by_gate[j] += gate;
        }
      }
#pragma GCC unroll 8
      for (int j = 0; j < PARTS; j++) {
        store(gsb + (size_t)b * 2 * C + c0 + j * LANES, by_value[j]);
        store(gsb + (size_t)b * 2 * C + C + c0 + j * LANES, by_gate[j]);
      }
    }
}
}
