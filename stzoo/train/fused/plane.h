// Depthwise convolutions of planes: HEIGHT x WIDTH pixels of as many channels as a vector has, with zeros around them.
#pragma once
#include <type_traits>

#include "simd.h"

constexpr int PIXELS = HEIGHT * WIDTH, PLANE = PIXELS * LANES;

// Calls f with the first column of each tile of a row, as a constant: what lies outside the plane is known when this is
// compiled.
template <int FIRST = 0, class F>
static INLINE void each_tile(F f) {
  f(std::integral_constant<int, FIRST>{});
  if constexpr (FIRST + TILE < WIDTH) each_tile<FIRST + TILE>(f);
}

constexpr bool within(int column) { return column >= 0 && column < WIDTH; }

// Pixels FIRST, FIRST + 1, ... of row h of a KxK convolution with dilation D, by the taps w [K * K][LANES].
// FLIP turns the taps round, which is the gradient with respect to the input.
template <int K, int D, bool FLIP, int FIRST>
static INLINE void convolve_tile(const float* src, const float* w, int h, vec* sums) {
#pragma GCC unroll 16
  for (int i = 0; i < TILE; i++) sums[i] = vec{};
  for (int ky = 0; ky < K; ky++) {
    int y = h + (ky - K / 2) * D;
    if (y < 0 || y >= HEIGHT) continue;
    const float* row = src + y * WIDTH * LANES;
#pragma GCC unroll 7
    for (int kx = 0; kx < K; kx++) {
      const int dx = (kx - K / 2) * D;
      vec tap = load(w + (FLIP ? (K * K - 1 - (ky * K + kx)) : (ky * K + kx)) * LANES);
#pragma GCC unroll 16
      for (int i = 0; i < TILE; i++)
        if (within(FIRST + i) && within(FIRST + i + dx)) sums[i] += tap * load(row + (FIRST + i + dx) * LANES);
    }
  }
}

// Calls f(pixel, sum) for each pixel of row h.
template <int K, int D, bool FLIP, class F>
static INLINE void convolve_row(const float* src, const float* w, int h, F f) {
  each_tile([&](auto first) {
    vec sums[TILE];
    convolve_tile<K, D, FLIP, first()>(src, w, h, sums);
#pragma GCC unroll 16
    for (int i = 0; i < TILE; i++)
      if (within(first() + i)) f(h * WIDTH + first() + i, sums[i]);
  });
}

template <int K, int D, bool FLIP>
static INLINE void convolve(const float* src, const float* w, vec bias, float* dst) {
  for (int h = 0; h < HEIGHT; h++)
    convolve_row<K, D, FLIP>(src, w, h, [&](int pixel, vec sum) { store(dst + pixel * LANES, sum + bias); });
}

// Adds the gradient of the taps to gw [K * K][LANES], from the input x and the gradient g of the output. ROWS of taps
// are kept in registers at a time.
template <int K, int D, int ROWS>
static INLINE void tap_gradients(const float* x, const float* g, float* gw) {
  for (int k0 = 0; k0 < K; k0 += ROWS) {
    vec a[ROWS * K];
#pragma GCC unroll 9
    for (int k = 0; k < ROWS * K; k++) a[k] = load(gw + (k0 * K + k) * LANES);
    for (int h = 0; h < HEIGHT; h++) {
      const float* from = g + h * WIDTH * LANES;
      auto row = [&](int ky) { return h + (k0 + ky - K / 2) * D; };
      if (row(0) >= 0 && row(ROWS - 1) < HEIGHT)
        each_tile([&](auto first) {
#pragma GCC unroll 16
          for (int i = 0; i < TILE; i++)
            if (within(first() + i)) {
              vec gradient = load(from + (first() + i) * LANES);
#pragma GCC unroll 9
              for (int k = 0; k < ROWS * K; k++) {
                const int column = first() + i + (k % K - K / 2) * D;
                if (within(column)) a[k] += gradient * load(x + (row(k / K) * WIDTH + column) * LANES);
              }
            }
        });
      else
#pragma GCC unroll 3
        for (int ky = 0; ky < ROWS; ky++) {
          if (row(ky) < 0 || row(ky) >= HEIGHT) continue;
          for (int i = 0; i < WIDTH; i++)
#pragma GCC unroll 7
            for (int kx = 0; kx < K; kx++) {
              int column = i + (kx - K / 2) * D;
              if (within(column))
                a[ky * K + kx] += load(from + i * LANES) * load(x + (row(ky) * WIDTH + column) * LANES);
            }
        }
    }
#pragma GCC unroll 9
    for (int k = 0; k < ROWS * K; k++) store(gw + (k0 * K + k) * LANES, a[k]);
  }
}

// The PARTS planes of a chunk of channels, out of (PIXELS, C); `bias` is of these channels.
template <bool NEXT>  // the chunk beside this one is read next
static INLINE void load_planes(const stored* x, const float* bias, int C, float* planes) {
  for (int i = 0; i < PIXELS; i++) {
    if (NEXT) __builtin_prefetch(x + (size_t)i * C + CHUNK, 0, 2);
#pragma GCC unroll 8
    for (int j = 0; j < PARTS; j++) {
      vec v = load(x + (size_t)i * C + j * LANES);
      store(planes + j * PLANE + i * LANES, bias ? v + load(bias + j * LANES) : v);
    }
  }
}

// Taps [K * K] of LANES channels out of (K * K, C), and back.
template <int K>
static INLINE void load_taps(const float* w, int C, float* taps) {
  for (int k = 0; k < K * K; k++) store(taps + k * LANES, load(w + (size_t)k * C));
}
template <int K>
static INLINE void store_taps(const float* taps, int C, float* w) {
  for (int k = 0; k < K * K; k++) store(w + (size_t)k * C, load(taps + k * LANES));
}
