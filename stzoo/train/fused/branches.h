// What lies between the matrix products of a block's two branches. Arrays are (batch, 256 pixels, C) unless said.
#pragma once
#include <omp.h>

#include "simd.h"

extern "C" {
// u = gelu(p), e = depthwise 7x7 (dilation 3) of depthwise 5x5 of u, q = mean of u over pixels (batch, C).
void gate_fwd(const bf* p, const float* w5, const float* b5, const float* w7, const float* b7, bf* u, bf* e, float* q,
              int B, int C) {
  int nb = C / 32;
#pragma omp parallel for collapse(2) schedule(static)
  for (int cb = 0; cb < nb; cb++)
    for (int b = 0; b < B; b++) {
      ALIGNED s[2][PIXELS * 16], t[PIXELS * 16];
      ALIGNED l5[25 * 16], l7[49 * 16];
      size_t o = (size_t)b * PIXELS * C + cb * 32;
      load_planes(p + o, C, s[0], s[1]);
      for (int j = 0; j < 2; j++) {
        int c = cb * 32 + j * 16;
        load_taps<5>(w5, C, c, l5);
        load_taps<7>(w7, C, c, l7);
        __m512 a = splat(0);
        for (int i = 0; i < PIXELS; i++) {
          __m512 v = gelu(_mm512_load_ps(s[j] + i * 16));
          _mm512_store_ps(s[j] + i * 16, v);
          a = _mm512_add_ps(a, v);
          store_bf16(u + o + (size_t)i * C + j * 16, v);
        }
        store(q + (size_t)b * C + c, _mm512_mul_ps(a, splat(1.f / PIXELS)));
        convolve<5, 1, false>(s[j], l5, load(b5 + c), t);
        __m512 bv = load(b7 + c);
        for (int h = 0; h < SIDE; h++) {
          __m512 acc[SIDE];
          convolve_row<7, 3, false>(t, l7, acc, h);
#pragma GCC unroll 16
          for (int i = 0; i < SIDE; i++)
            store_bf16(e + o + (size_t)(h * SIDE + i) * C + j * 16, _mm512_add_ps(acc[i], bv));
        }
      }
    }
}

// From the gradients ge of e, gu of u by its other use, and gq of q: gp, those of taps and biases, and the sum of gp.
// The 5x5 convolution is computed again instead of having been kept.
void gate_bwd(const bf* p, const bf* ge, const bf* gu, const float* gq, const float* w5, const float* b5,
              const float* w7, bf* gp, float* gw5, float* gb5, float* gw7, float* gb7, float* gpb, int B, int C) {
  int nb = C / 32;
#pragma omp parallel for schedule(static)
  for (int cb = 0; cb < nb; cb++) {
    ALIGNED s[2][PIXELS * 16], g[2][PIXELS * 16], t[PIXELS * 16], t2[PIXELS * 16], dg[PIXELS * 16];
    ALIGNED l5[2][25 * 16], l7[2][49 * 16], a5[2][25 * 16], a7[2][49 * 16];
    __m512 s5[2], s7[2], sp[2];
    memset(a5, 0, sizeof a5);
    memset(a7, 0, sizeof a7);
    for (int j = 0; j < 2; j++) {
      load_taps<5>(w5, C, cb * 32 + j * 16, l5[j]);
      load_taps<7>(w7, C, cb * 32 + j * 16, l7[j]);
      s5[j] = s7[j] = sp[j] = splat(0);
    }
    for (int b = 0; b < B; b++) {
      size_t o = (size_t)b * PIXELS * C + cb * 32;
      load_planes(p + o, C, s[0], s[1]);
      load_planes(ge + o, C, g[0], g[1]);
      for (int j = 0; j < 2; j++) {
        int c = cb * 32 + j * 16;
        for (int i = 0; i < PIXELS; i++) {
          __m512 y, d;
          gelu_and_slope(_mm512_load_ps(s[j] + i * 16), y, d);
          _mm512_store_ps(s[j] + i * 16, y);
          _mm512_store_ps(dg + i * 16, d);
          s7[j] = _mm512_add_ps(s7[j], _mm512_load_ps(g[j] + i * 16));
        }
        convolve<5, 1, false>(s[j], l5[j], load(b5 + c), t);  // recompute d5 output
        tap_gradients<7, 3>(t, g[j], a7[j]);
        convolve<7, 3, true>(g[j], l7[j], splat(0), t2);  // t2 = grad of d5 output
        for (int i = 0; i < PIXELS; i++) s5[j] = _mm512_add_ps(s5[j], _mm512_load_ps(t2 + i * 16));
        tap_gradients<5, 1>(s[j], t2, a5[j]);
        __m512 q = _mm512_mul_ps(load(gq + (size_t)b * C + c), splat(1.f / PIXELS));
        for (int h = 0; h < SIDE; h++) {
          __m512 acc[SIDE];
          convolve_row<5, 1, true>(t2, l5[j], acc, h);
#pragma GCC unroll 16
          for (int i = 0; i < SIDE; i++) {
            size_t k = o + (size_t)(h * SIDE + i) * C + j * 16;
            __m512 v = _mm512_mul_ps(_mm512_add_ps(_mm512_add_ps(acc[i], q), load_bf16(gu + k)),
                                     _mm512_load_ps(dg + (h * SIDE + i) * 16));
            sp[j] = _mm512_add_ps(sp[j], v);
            store_bf16(gp + k, v);
          }
        }
      }
    }
    for (int j = 0; j < 2; j++) {
      int c = cb * 32 + j * 16;
      store_taps<5>(a5[j], C, c, gw5);
      store_taps<7>(a7[j], C, c, gw7);
      store(gb5 + c, s5[j]);
      store(gb7 + c, s7[j]);
      store(gpb + c, sp[j]);
    }
  }
}

// h = gelu(depthwise 3x3 of p): the middle of the MLP.
void mid_fwd(const bf* p, const float* w, const float* bias, bf* h_, int B, int C) {
  int nb = C / 32;
#pragma omp parallel for schedule(static)
  for (int b = 0; b < B; b++)
    for (int cb = 0; cb < nb; cb++) {
      ALIGNED s[2][PIXELS * 16];
      ALIGNED l[2][9 * 16];
      size_t o = (size_t)b * PIXELS * C + cb * 32;
      load_planes_prefetching(p + o, C, s[0], s[1]);
      __m512 bv[2];
      for (int j = 0; j < 2; j++) {
        load_taps<3>(w, C, cb * 32 + j * 16, l[j]);
        bv[j] = load(bias + cb * 32 + j * 16);
      }
      for (int h = 0; h < SIDE; h++) {
        ALIGNED tmp[SIDE * 16];
        __m512 acc[SIDE];
        convolve_row<3, 1, false>(s[0], l[0], acc, h);
#pragma GCC unroll 16
        for (int i = 0; i < SIDE; i++) _mm512_store_ps(tmp + i * 16, gelu(_mm512_add_ps(acc[i], bv[0])));
        convolve_row<3, 1, false>(s[1], l[1], acc, h);
#pragma GCC unroll 16
        for (int i = 0; i < SIDE; i++) {
          bf* q = h_ + o + (size_t)(h * SIDE + i) * C;
          store_bf16(q, _mm512_load_ps(tmp + i * 16));
          store_bf16(q + 16, gelu(_mm512_add_ps(acc[i], bv[1])));
        }
      }
    }
}

void mid_bwd(const bf* p, const bf* gh, const float* w, const float* bias, bf* gp, float* gw, float* gb, float* gpb,
             int B, int C) {
  int nb = C / 32;
  size_t NA = (size_t)11 * C;
  float* ACC = (float*)aligned_alloc(64, NA * omp_get_max_threads() * 4);
#pragma omp parallel
  {
    int n = omp_get_num_threads(), t = omp_get_thread_num();
    float* A = ACC + t * NA;
    memset(A, 0, NA * 4);
    ALIGNED s[2][PIXELS * 16], g[2][PIXELS * 16];
    ALIGNED l[9 * 16];
#pragma omp for schedule(static)
    for (int b = 0; b < B; b++)
      for (int cb = 0; cb < nb; cb++) {
        size_t o = (size_t)b * PIXELS * C + cb * 32;
        load_planes_prefetching(p + o, C, s[0], s[1]);
        load_planes_prefetching(gh + o, C, g[0], g[1]);
        for (int j = 0; j < 2; j++) {
          int c = cb * 32 + j * 16;
          load_taps<3>(w, C, c, l);
          __m512 bv = load(bias + c), sb = splat(0), sp = splat(0);
          for (int h = 0; h < SIDE; h++) {
            __m512 acc[SIDE];
            convolve_row<3, 1, false>(s[j], l, acc, h);
#pragma GCC unroll 16
            for (int i = 0; i < SIDE; i++) {
              __m512 y, d;
              gelu_and_slope(_mm512_add_ps(acc[i], bv), y, d);
              float* q = g[j] + (h * SIDE + i) * 16;
              d = _mm512_mul_ps(d, _mm512_load_ps(q));
              _mm512_store_ps(q, d);
              sb = _mm512_add_ps(sb, d);
            }
          }
          tap_gradients_3x3(s[j], g[j], A + cb * 32 * 9 + j * 16 * 9);
          for (int h = 0; h < SIDE; h++) {
            __m512 acc[SIDE];
            convolve_row<3, 1, true>(g[j], l, acc, h);
#pragma GCC unroll 16
            for (int i = 0; i < SIDE; i++) {
              sp = _mm512_add_ps(sp, acc[i]);
              _mm512_store_ps(s[j] + (h * SIDE + i) * 16, acc[i]);
            }
          }
          store(A + 9 * C + c, _mm512_add_ps(load(A + 9 * C + c), sb));
          store(A + 10 * C + c, _mm512_add_ps(load(A + 10 * C + c), sp));
        }
        for (int i = 0; i < PIXELS; i++) {
          store_bf16(gp + o + (size_t)i * C, _mm512_load_ps(s[0] + i * 16));
          store_bf16(gp + o + (size_t)i * C + 16, _mm512_load_ps(s[1] + i * 16));
        }
      }
#pragma omp single
    {
      for (int k = 1; k < n; k++)
        for (size_t i = 0; i < NA; i++) ACC[i] += ACC[k * NA + i];
      for (int cb = 0; cb < nb * 2; cb++)
        for (int t = 0; t < 9; t++) store(gw + (size_t)t * C + cb * 16, load(ACC + (size_t)cb * 16 * 9 + t * 16));
      memcpy(gb, ACC + 9 * C, 4 * C);
      memcpy(gpb, ACC + 10 * C, 4 * C);
    }
  }
  free(ACC);
}

// g = sigmoid(...) * statical * u, the sigmoid's value one per image and channel.
void mul_fwd(const bf* s_, const bf* u, const float* sig, bf* g, int B, int C) {
#pragma omp parallel for schedule(static)
  for (int b = 0; b < B; b++)
    for (int i = 0; i < PIXELS; i++) {
      size_t o = ((size_t)b * PIXELS + i) * C;
      for (int c = 0; c < C; c += 16)
        store_bf16(g + o + c, _mm512_mul_ps(load(sig + (size_t)b * C + c),
                                            _mm512_mul_ps(load_bf16(s_ + o + c), load_bf16(u + o + c))));
    }
}

// gsum: the sum of gs over pixels, for the bias in front.
void mul_bwd(const bf* gg, const bf* s_, const bf* u, const float* sig, bf* gs, bf* gu, float* gsig, float* gsum, int B,
             int C) {  // gsum [B][C]: per image column sum of gs
#pragma omp parallel for schedule(static)
  for (int b = 0; b < B; b++)
    for (int c = 0; c < C; c += 32) {
      __m512 a[2] = {splat(0), splat(0)}, t[2] = {splat(0), splat(0)},
             sg[2] = {load(sig + (size_t)b * C + c), load(sig + (size_t)b * C + c + 16)};
      for (int i = 0; i < PIXELS; i++) {
        size_t o = ((size_t)b * PIXELS + i) * C + c;
        for (int j = 0; j < 2; j++) {
          __m512 g = load_bf16(gg + o + j * 16), st = load_bf16(s_ + o + j * 16), U = load_bf16(u + o + j * 16),
                 gv = _mm512_mul_ps(g, sg[j]);
          __m512 x = _mm512_mul_ps(gv, U);
          store_bf16(gs + o + j * 16, x);
          t[j] = _mm512_add_ps(t[j], x);
          store_bf16(gu + o + j * 16, _mm512_mul_ps(gv, st));
          a[j] = _mm512_fmadd_ps(g, _mm512_mul_ps(st, U), a[j]);
        }
      }
      for (int j = 0; j < 2; j++) {
        store(gsig + (size_t)b * C + c + j * 16, a[j]);
        store(gsum + (size_t)b * C + c + j * 16, t[j]);
      }
    }
}
}
