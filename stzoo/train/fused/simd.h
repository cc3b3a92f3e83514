// Sixteen channels at a time: loads and stores, activations, and depthwise convolution of one 16x16 plane.
#pragma once
#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#define ALIGNED alignas(64) float
#define INLINE inline __attribute__((always_inline))
static INLINE __m512 load_bf16(const uint16_t* p) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16));
}
static INLINE void store_bf16(uint16_t* p, __m512 v) {
  _mm256_storeu_si256((__m256i*)p, (__m256i)_mm512_cvtneps_pbh(v));
}
constexpr int SIDE = 16, PIXELS = 256;

// Row h of a depthwise KxK convolution, dilation D, zero padding: src is a plane [256][16], w its taps [K*K][16].
// FLIP turns the taps round, which is the gradient with respect to the input.
template <int K, int D, bool FLIP>
static INLINE void convolve_row(const float* src, const float* w, __m512* acc, int h) {
  constexpr int R = K / 2;
  for (int i = 0; i < SIDE; i++) acc[i] = _mm512_setzero_ps();
  for (int ky = 0; ky < K; ky++) {
    int y = h + (ky - R) * D;
    if (y < 0 || y >= SIDE) continue;
    const float* r = src + y * SIDE * 16;
#pragma GCC unroll 7
    for (int kx = 0; kx < K; kx++) {
      __m512 wv = _mm512_loadu_ps(w + (FLIP ? (K * K - 1 - (ky * K + kx)) : (ky * K + kx)) * 16);
      const int dx = (kx - R) * D;
#pragma GCC unroll 16
      for (int i = 0; i < SIDE; i++)
        if (i + dx >= 0 && i + dx < SIDE) acc[i] = _mm512_fmadd_ps(wv, _mm512_loadu_ps(r + (i + dx) * 16), acc[i]);
    }
  }
}

// Adds the gradient of the taps to gw [K*K][16], from the input x and the gradient g of the output.
template <int K, int D>
static INLINE void tap_gradients(const float* x, const float* g, float* gw) {
  constexpr int R = K / 2;
  for (int ky = 0; ky < K; ky++) {
    __m512 a[K];
    for (int k = 0; k < K; k++) a[k] = _mm512_loadu_ps(gw + (ky * K + k) * 16);
    int dy = (ky - R) * D;
    for (int h = 0; h < SIDE; h++) {
      int y = h + dy;
      if (y < 0 || y >= SIDE) continue;
      const float* xr = x + y * SIDE * 16;
      const float* gr = g + h * SIDE * 16;
#pragma GCC unroll 16
      for (int i = 0; i < SIDE; i++) {
        __m512 gv = _mm512_loadu_ps(gr + i * 16);
#pragma GCC unroll 7
        for (int k = 0; k < K; k++) {
          const int dx = (k - R) * D;
          if (i + dx >= 0 && i + dx < SIDE) a[k] = _mm512_fmadd_ps(gv, _mm512_loadu_ps(xr + (i + dx) * 16), a[k]);
        }
      }
    }
    for (int k = 0; k < K; k++) _mm512_storeu_ps(gw + (ky * K + k) * 16, a[k]);
  }
}

// Two planes of 16 channels out of (256, C) bfloat16.
static INLINE void load_planes(const uint16_t* x, int C, float* a, float* b) {
  for (int p = 0; p < PIXELS; p++) {
    _mm512_store_ps(a + p * 16, load_bf16(x + (size_t)p * C));
    _mm512_store_ps(b + p * 16, load_bf16(x + (size_t)p * C + 16));
  }
}
template <int K>
static INLINE void load_taps(const float* w, int C, int c, float* o) {
  for (int t = 0; t < K * K; t++) _mm512_storeu_ps(o + t * 16, _mm512_loadu_ps(w + (size_t)t * C + c));
}

typedef uint16_t bf;  // the bits of a bfloat16
static INLINE __m512 load(const float* p) { return _mm512_loadu_ps(p); }
static INLINE void store(float* p, __m512 v) { _mm512_storeu_ps(p, v); }
static INLINE __m512 splat(float v) { return _mm512_set1_ps(v); }
static INLINE __m512 sigmoid(__m512 x) {  // 1/(1+exp(-x))
  __m512 t = _mm512_mul_ps(x, splat(-1.44269504f));
  t = _mm512_min_ps(_mm512_max_ps(t, splat(-80.f)), splat(80.f));
  __m512 n = _mm512_roundscale_ps(t, 8);
  __m512 f = _mm512_sub_ps(t, n);
  __m512 p = splat(1.33335581e-3f);
  p = _mm512_fmadd_ps(p, f, splat(9.61812911e-3f));
  p = _mm512_fmadd_ps(p, f, splat(5.55041087e-2f));
  p = _mm512_fmadd_ps(p, f, splat(2.40226507e-1f));
  p = _mm512_fmadd_ps(p, f, splat(6.93147181e-1f));
  p = _mm512_fmadd_ps(p, f, splat(1.f));
  __m512 d = _mm512_add_ps(_mm512_scalef_ps(p, n), splat(1.f));
  __m512 r = _mm512_rcp14_ps(d);
  return _mm512_mul_ps(r, _mm512_fnmadd_ps(d, r, splat(2.f)));
}

// GELU in its tanh form is x * sigmoid(1.596 x + 0.0714 x^3).
static INLINE __m512 gelu_gate(__m512 x) {
  __m512 x2 = _mm512_mul_ps(x, x);
  return sigmoid(_mm512_mul_ps(x, _mm512_fmadd_ps(x2, splat(0.07135481283f), splat(1.59576912f))));
}
static INLINE __m512 gelu(__m512 x) { return _mm512_mul_ps(x, gelu_gate(x)); }
static INLINE void gelu_and_slope(__m512 x, __m512& y, __m512& d) {
  __m512 s = gelu_gate(x);
  y = _mm512_mul_ps(x, s);
  __m512 z = _mm512_fmadd_ps(_mm512_mul_ps(x, x), splat(0.2140644385f), splat(1.59576912f));
  d = _mm512_fmadd_ps(_mm512_mul_ps(y, _mm512_sub_ps(splat(1.f), s)), z, s);
}
template <int K, int D, bool FLIP>
static INLINE void convolve(const float* src, const float* w, __m512 b, float* dst) {  // a whole plane
  for (int h = 0; h < SIDE; h++) {
    __m512 acc[SIDE];
    convolve_row<K, D, FLIP>(src, w, acc, h);
#pragma GCC unroll 16
    for (int i = 0; i < SIDE; i++) _mm512_store_ps(dst + (h * SIDE + i) * 16, _mm512_add_ps(acc[i], b));
  }
}
template <int K>
static INLINE void store_taps(const float* l, int C, int c, float* o) {
  for (int t = 0; t < K * K; t++) store(o + (size_t)t * C + c, load(l + t * 16));
}
static INLINE void load_planes_prefetching(const bf* x, int C, float* a, float* b) {
  for (int p = 0; p < PIXELS; p++) {
    _mm_prefetch((const char*)(x + (size_t)p * C + 32), _MM_HINT_T1);
    _mm512_store_ps(a + p * 16, load_bf16(x + (size_t)p * C));
    _mm512_store_ps(b + p * 16, load_bf16(x + (size_t)p * C + 16));
  }
}

// tap_gradients for 3x3, with all nine taps in registers.
static INLINE void tap_gradients_3x3(const float* x, const float* g, float* gw) {
  __m512 a[9];
  for (int k = 0; k < 9; k++) a[k] = load(gw + k * 16);
  for (int h = 0; h < SIDE; h++) {
    const float* gr = g + h * SIDE * 16;
    if (h > 0 && h < SIDE - 1) {
#pragma GCC unroll 16
      for (int i = 0; i < SIDE; i++) {
        __m512 gv = _mm512_load_ps(gr + i * 16);
#pragma GCC unroll 9
        for (int k = 0; k < 9; k++) {
          const int dx = k % 3 - 1, dy = k / 3 - 1;
          if (i + dx >= 0 && i + dx < SIDE)
            a[k] = _mm512_fmadd_ps(gv, _mm512_load_ps(x + ((h + dy) * SIDE + i + dx) * 16), a[k]);
        }
      }
    } else
      for (int ky = 0; ky < 3; ky++) {
        int y = h + ky - 1;
        if (y < 0 || y >= SIDE) continue;
        for (int i = 0; i < SIDE; i++)
          for (int kx = 0; kx < 3; kx++) {
            int X = i + kx - 1;
            if (X >= 0 && X < SIDE)
              a[ky * 3 + kx] =
                  _mm512_fmadd_ps(_mm512_load_ps(gr + i * 16), _mm512_load_ps(x + (y * SIDE + X) * 16), a[ky * 3 + kx]);
          }
      }
  }
  for (int k = 0; k < 9; k++) store(gw + k * 16, a[k]);
}
