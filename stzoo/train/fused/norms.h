// BatchNorm with the residual sums around it, and GroupNorm with SiLU. Rows are pixels: (M, C), or (N, HW, C).
#pragma once
#include <omp.h>

#include <vector>

#include "simd.h"

extern "C" {
// xn = x + s * (y + a) where there is a y, else x; its batch statistics; out = BatchNorm(xn).
void bn_fwd(const float* x, const bf* y, const bf* a, const float* s, const float* w, const float* bb, float* xn,
            bf* out, float* mean, float* var, int M, int C, float eps) {
  std::vector<float> acc((size_t)4 * C * omp_get_max_threads());
  float* A = acc.data();
#pragma omp parallel
  {
    int n = omp_get_num_threads(), t = omp_get_thread_num();
    float* q = A + (size_t)t * 2 * C;
    int m0 = (long)M * t / n, m1 = (long)M * (t + 1) / n;
    for (int m = m0; m < m1; m++)
      for (int c = 0; c < C; c += 16) {
        size_t o = (size_t)m * C + c;
        __m512 v = load(x + o);
        if (y) {
          __m512 z = load_bf16(y + o);
          if (a) z = _mm512_add_ps(z, load_bf16(a + o));
          v = _mm512_fmadd_ps(load(s + c), z, v);
          store(xn + o, v);
        }
        store(q + c, _mm512_add_ps(load(q + c), v));
        store(q + C + c, _mm512_fmadd_ps(v, v, load(q + C + c)));
      }
#pragma omp barrier
#pragma omp single
    {
      for (int c = 0; c < C; c++) {
        double m = 0, v = 0;
        for (int k = 0; k < n; k++) {
          m += A[(size_t)k * 2 * C + c];
          v += A[(size_t)k * 2 * C + C + c];
        }
        m /= M;
        v = v / M - m * m;
        mean[c] = m;
        var[c] = v < 0 ? 0 : v;
        float r = 1 / std::sqrt(var[c] + eps);
        A[c] = r * w[c];
        A[C + c] = bb[c] - m * A[c];
      }
    }
    const float* src = y ? xn : x;
    for (int m = m0; m < m1; m++)
      for (int c = 0; c < C; c += 16) {
        size_t o = (size_t)m * C + c;
        store_bf16(out + o, _mm512_fmadd_ps(load(src + o), load(A + c), load(A + C + c)));
      }
  }
}

// gA (+ gA2): gradient of BatchNorm's output. gX: gradient of xn by the residual path. gsum: the sum of gy.
void bn_bwd(const bf* gA, const bf* gA2, const float* gX, const float* xn, const float* mean, const float* var,
            const float* w, const bf* y, const bf* a, const float* s, float* gx, bf* gy, float* gw, float* gb,
            float* gs, float* gsum, int M, int C, float eps) {
  std::vector<float> acc((size_t)2 * C * omp_get_max_threads() + 4 * C);
  float* A = acc.data();
  float* K = A + (size_t)2 * C * omp_get_max_threads();  // K: r, m, c1, c2
  for (int c = 0; c < C; c++) {
    K[c] = 1 / std::sqrt(var[c] + eps);
    K[C + c] = -mean[c] * K[c];
  }
#pragma omp parallel
  {
    int n = omp_get_num_threads(), t = omp_get_thread_num();
    float* q = A + (size_t)t * 2 * C;
    int m0 = (long)M * t / n, m1 = (long)M * (t + 1) / n;
    for (int m = m0; m < m1; m++)
      for (int c = 0; c < C; c += 16) {
        size_t o = (size_t)m * C + c;
        __m512 g = load_bf16(gA + o);
        if (gA2) g = _mm512_add_ps(g, load_bf16(gA2 + o));
        __m512 h = _mm512_fmadd_ps(load(xn + o), load(K + c), load(K + C + c));
        store(q + c, _mm512_add_ps(load(q + c), g));
        store(q + C + c, _mm512_fmadd_ps(g, h, load(q + C + c)));
      }
#pragma omp barrier
#pragma omp single
    {
      for (int c = 0; c < C; c++) {
        double u = 0, v = 0;
        for (int k = 0; k < n; k++) {
          u += A[(size_t)k * 2 * C + c];
          v += A[(size_t)k * 2 * C + C + c];
        }
        gb[c] = u;
        gw[c] = v;
        K[2 * C + c] = u / M;
        K[3 * C + c] = v / M;
      }
      std::memset(A, 0, sizeof(float) * 2 * C * n);
    }
    for (int m = m0; m < m1; m++)
      for (int c = 0; c < C; c += 16) {
        size_t o = (size_t)m * C + c;
        __m512 g = load_bf16(gA + o);
        if (gA2) g = _mm512_add_ps(g, load_bf16(gA2 + o));
        __m512 r = load(K + c), h = _mm512_fmadd_ps(load(xn + o), r, load(K + C + c));
        __m512 v = _mm512_fnmadd_ps(h, load(K + 3 * C + c), _mm512_sub_ps(g, load(K + 2 * C + c)));
        v = _mm512_fmadd_ps(v, _mm512_mul_ps(r, load(w + c)), load(gX + o));
        store(gx + o, v);
        if (y) {
          __m512 z = load_bf16(y + o);
          if (a) z = _mm512_add_ps(z, load_bf16(a + o));
          store(q + c, _mm512_fmadd_ps(v, z, load(q + c)));
          __m512 e = _mm512_mul_ps(v, load(s + c));
          store_bf16(gy + o, e);
          store(q + C + c, _mm512_add_ps(load(q + C + c), e));
        }
      }
#pragma omp barrier
#pragma omp single
    {
      if (y)
        for (int c = 0; c < C; c++) {
          float u = 0, v = 0;
          for (int k = 0; k < n; k++) {
            u += A[(size_t)k * 2 * C + c];
            v += A[(size_t)k * 2 * C + C + c];
          }
          gs[c] = u;
          gsum[c] = v;
        }
    }
  }
}

// The last sum of a block: x + s * y.
void res_fwd(const float* x, const bf* y, const float* s, float* o_, int M, int C) {
#pragma omp parallel for schedule(static)
  for (int m = 0; m < M; m++)
    for (int c = 0; c < C; c += 16) {
      size_t o = (size_t)m * C + c;
      store(o_ + o, _mm512_fmadd_ps(load(s + c), load_bf16(y + o), load(x + o)));
    }
}

void res_bwd(const float* gX, const bf* y, const float* s, bf* gy, float* gs, float* gsum, int M, int C) {
  std::vector<float> acc((size_t)2 * C * omp_get_max_threads());
  float* A = acc.data();
#pragma omp parallel
  {
    int n = omp_get_num_threads(), t = omp_get_thread_num();
    float* q = A + (size_t)t * 2 * C;
    int m0 = (long)M * t / n, m1 = (long)M * (t + 1) / n;
    for (int m = m0; m < m1; m++)
      for (int c = 0; c < C; c += 16) {
        size_t o = (size_t)m * C + c;
        __m512 v = load(gX + o);
        store(q + c, _mm512_fmadd_ps(v, load_bf16(y + o), load(q + c)));
        __m512 e = _mm512_mul_ps(v, load(s + c));
        store_bf16(gy + o, e);
        store(q + C + c, _mm512_add_ps(load(q + C + c), e));
      }
#pragma omp barrier
#pragma omp single
    {
      for (int c = 0; c < C; c++) {
        float u = 0, v = 0;
        for (int k = 0; k < n; k++) {
          u += A[(size_t)k * 2 * C + c];
          v += A[(size_t)k * 2 * C + C + c];
        }
        gs[c] = u;
        gsum[c] = v;
      }
    }
  }
}

// SiLU(GroupNorm(2)(y)); mr keeps mean and inverse deviation of both groups of each image.
void gn_fwd(const bf* y, const float* w, const float* bb, bf* o_, float* mr, int N, int HW, int C, float eps) {
#pragma omp parallel for schedule(static)
  for (int n = 0; n < N; n++) {
    float su[256], sq[256];
    ALIGNED A[256], Bc[256];
    const bf* Y = y + (size_t)n * HW * C;
    bf* O = o_ + (size_t)n * HW * C;
    for (int c = 0; c < C; c += 16) {
      __m512 a = splat(0), b = splat(0);
      for (int p = 0; p < HW; p++) {
        __m512 v = load_bf16(Y + (size_t)p * C + c);
        a = _mm512_add_ps(a, v);
        b = _mm512_fmadd_ps(v, v, b);
      }
      store(su + c, a);
      store(sq + c, b);
    }
    for (int g = 0; g < 2; g++) {
      double m = 0, v = 0;
      for (int c = g * C / 2; c < (g + 1) * C / 2; c++) {
        m += su[c];
        v += sq[c];
      }
      double k = (double)HW * C / 2;
      m /= k;
      v = v / k - m * m;
      if (v < 0) v = 0;
      float r = 1 / std::sqrt(v + eps);
      mr[n * 4 + g * 2] = m;
      mr[n * 4 + g * 2 + 1] = r;
      for (int c = g * C / 2; c < (g + 1) * C / 2; c++) {
        A[c] = r * w[c];
        Bc[c] = bb[c] - m * A[c];
      }
    }
    for (int c = 0; c < C; c += 16) {
      __m512 a = load(A + c), b = load(Bc + c);
      for (int p = 0; p < HW; p++) {
        __m512 z = _mm512_fmadd_ps(load_bf16(Y + (size_t)p * C + c), a, b);
        store_bf16(O + (size_t)p * C + c, _mm512_mul_ps(z, sigmoid(z)));
      }
    }
  }
}

// gw, gb, gsum: (N, C), to be summed over images.
void gn_bwd(const bf* y, const bf* go, const float* w, const float* bb, const float* mr, bf* gy, float* gw, float* gb,
            float* gsum, int N, int HW, int C) {
#pragma omp parallel for schedule(static)
  for (int n = 0; n < N; n++) {
    ALIGNED R[256], Mn[256], C1[256], C2[256];
    const bf* Y = y + (size_t)n * HW * C;
    const bf* G = go + (size_t)n * HW * C;
    bf* O = gy + (size_t)n * HW * C;
    float* W = gw + (size_t)n * C;
    float* Bb = gb + (size_t)n * C;
    for (int c = 0; c < C; c++) {
      int g = c >= C / 2;
      R[c] = mr[n * 4 + g * 2 + 1];
      Mn[c] = -mr[n * 4 + g * 2] * R[c];
    }
    for (int c = 0; c < C; c += 16) {
      __m512 a = splat(0), b = splat(0), r = load(R + c), m = load(Mn + c), ww = load(w + c), bv = load(bb + c);
      for (int p = 0; p < HW; p++) {
        size_t o = (size_t)p * C + c;
        __m512 h = _mm512_fmadd_ps(load_bf16(Y + o), r, m), z = _mm512_fmadd_ps(h, ww, bv), s = sigmoid(z);
        __m512 d = _mm512_mul_ps(s, _mm512_fmadd_ps(z, _mm512_sub_ps(splat(1.f), s), splat(1.f)));
        d = _mm512_mul_ps(d, load_bf16(G + o));
        store_bf16(O + o, d);
        a = _mm512_add_ps(a, d);
        b = _mm512_fmadd_ps(d, h, b);
      }
      store(Bb + c, a);
      store(W + c, b);
    }
    for (int g = 0; g < 2; g++) {
      double u = 0, v = 0;
      for (int c = g * C / 2; c < (g + 1) * C / 2; c++) {
        u += Bb[c] * w[c];
        v += W[c] * w[c];
      }
      double k = (double)HW * C / 2;
      for (int c = g * C / 2; c < (g + 1) * C / 2; c++) {
        C1[c] = u / k;
        C2[c] = v / k;
      }
    }
    for (int c = 0; c < C; c += 16) {
      __m512 r = load(R + c), m = load(Mn + c), ww = load(w + c), k1 = load(C1 + c), k2 = load(C2 + c), t = splat(0);
      for (int p = 0; p < HW; p++) {
        size_t o = (size_t)p * C + c;
        __m512 h = _mm512_fmadd_ps(load_bf16(Y + o), r, m);
        __m512 v = _mm512_mul_ps(r, _mm512_fnmadd_ps(h, k2, _mm512_fmsub_ps(load_bf16(O + o), ww, k1)));
        t = _mm512_add_ps(t, v);
        store_bf16(O + o, v);
      }
      store(gsum + (size_t)n * C + c, t);
    }
  }
}
}
