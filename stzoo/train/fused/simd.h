// Vectors of float32 as long as this machine's registers, the type that activations are kept in, and their functions.
#pragma once
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#define INLINE inline __attribute__((always_inline))

#if defined(__AVX512F__)
constexpr int LANES = 16, TILE = 16;  // floats in a register; sums that are kept in registers at a time
#elif defined(__AVX__)
constexpr int LANES = 8, TILE = 8;
#elif defined(__aarch64__)
constexpr int LANES = 4, TILE = 16;
#else
constexpr int LANES = 4, TILE = 8;
#endif

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef uint32_t bits __attribute__((vector_size(4 * LANES)));
typedef uint16_t halves __attribute__((vector_size(2 * LANES)));
typedef float loose __attribute__((vector_size(4 * LANES), aligned(4), may_alias));  // of any address
typedef uint16_t loose_halves __attribute__((vector_size(2 * LANES), aligned(2), may_alias));

#if defined(BFLOAT16)
typedef uint16_t stored;  // the bits of a bfloat16
#else
typedef float stored;
#endif
constexpr int CHUNK = 64 / sizeof(stored), PARTS = CHUNK / LANES;  // channels in a line of the cache; vectors of them

static INLINE vec splat(float v) { return vec{} + v; }
static INLINE vec load(const float* p) { return *(const loose*)p; }
static INLINE void store(float* p, vec v) { *(loose*)p = v; }
static INLINE vec load(const uint16_t* p) {
  return (vec)(__builtin_convertvector((halves) * (const loose_halves*)p, bits) << 16);
}
static INLINE void store(uint16_t* p, vec v) {
#if defined(__AVX512BF16__)
  *(loose_halves*)p = (halves)_mm512_cvtneps_pbh((__m512)v);
#else
  bits u = (bits)v;  // rounds to the nearest, to the even one of two
  *(loose_halves*)p = __builtin_convertvector((u + 0x7fff + ((u >> 16) & 1)) >> 16, halves);
#endif
}

// What a kernel needs for itself, zero at first.
struct Scratch {
  float* at;
  explicit Scratch(size_t floats) {
    size_t bytes = (floats * sizeof(float) + 63) / 64 * 64;
    at = (float*)aligned_alloc(64, bytes);
    if (!at) abort();
    memset(at, 0, bytes);
  }
  Scratch(const Scratch&) = delete;
  ~Scratch() { free(at); }
};

// 1 / v, v > 0
static INLINE vec reciprocal(vec v) {
#if defined(__AVX512F__)
  vec r = (vec)_mm512_rcp14_ps((__m512)v);
  return r * (2.f - v * r);
#elif defined(__AVX__)
  vec r = (vec)_mm256_rcp_ps((__m256)v);
  return r * (2.f - v * r);
#else
  return 1.f / v;
#endif
}

// e^v to a few units in the last place; v is brought between -80 and 80.
static INLINE vec exponential(vec v) {
  v = v > splat(80.f) ? splat(80.f) : v;  // in this order NaN stays NaN
  v = v < splat(-80.f) ? splat(-80.f) : v;
  const float rounding = 12582912.f;  // 1.5 * 2^23: the sum's last bits are the nearest whole number
  vec whole = v * 1.44269504f + rounding;
  vec f = v * 1.44269504f - (whole - rounding);
  vec p = splat(1.54035304e-4f);
  p = p * f + 1.33335581e-3f;
  p = p * f + 9.61812911e-3f;
  p = p * f + 5.55041087e-2f;
  p = p * f + 2.40226507e-1f;
  p = p * f + 6.93147181e-1f;
  p = p * f + 1.f;
  return (vec)((bits)p + ((bits)whole << 23));
}

static INLINE vec sigmoid(vec v) { return reciprocal(1.f + exponential(-v)); }

// GELU is v * P, P the normal distribution of v: y = v * P, slope = P + v * P'. P is within 1e-7 of its value by the
// approximation 7.1.26 of Abramowitz and Stegun, whose exponential is that of P' as well.
static INLINE void gelu_and_slope(vec v, vec& y, vec& slope) {
  vec size = v < splat(0.f) ? -v : v;
  vec e = exponential(v * v * -0.5f), t = reciprocal(1.f + 0.231641888f * size);
  vec p = splat(0.5307027145f);
  p = p * t - 0.7265760135f;
  p = p * t + 0.7107068705f;
  p = p * t - 0.142248368f;
  p = p * t + 0.1274147960f;
  vec tail = p * t * e;
  vec normal = v < splat(0.f) ? tail : 1.f - tail;
  y = v * normal;
  slope = normal + v * e * 0.39894228f;
}
static INLINE vec gelu(vec v) {
  vec y, slope;
  gelu_and_slope(v, y, slope);
  return y;
}
