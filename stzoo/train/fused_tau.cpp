// Fused AVX-512 kernels for training TAU on a CPU: bfloat16 activations in NHWC order, float32 sums and parameters.
// Planes of 16x16 pixels, channels in multiples of 32. Matrix products stay with PyTorch; everything between them is
// here, so that each activation is read and written once. GELU is its tanh form, which bfloat16 cannot tell apart.
#include <immintrin.h>
#include <omp.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>
// Depthwise KxK convolution (dilation D, "same" padding) on NHWC bf16, H=W=16, C % 32 == 0.
// weights fp32 laid out [K*K][C].  fp32 accumulation.  AVX-512.
#define AI inline __attribute__((always_inline))
static AI __m512 ld(const uint16_t* p) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16));
}
static AI void st(uint16_t* p, __m512 v) { _mm256_storeu_si256((__m256i*)p, (__m256i)_mm512_cvtneps_pbh(v)); }
constexpr int S = 16, P = 256;
// out[h][w] (16 channels) = sum taps ; src: fp32 plane [256][16]; w: [K*K][16]
template <int K, int D, bool FLIP>
static AI void plane(const float* src, const float* w, __m512* acc, int h) {
  constexpr int R = K / 2;
  for (int i = 0; i < S; i++) acc[i] = _mm512_setzero_ps();
  for (int ky = 0; ky < K; ky++) {
    int y = h + (ky - R) * D;
    if (y < 0 || y >= S) continue;
    const float* r = src + y * S * 16;
#pragma GCC unroll 7
    for (int kx = 0; kx < K; kx++) {
      __m512 wv = _mm512_loadu_ps(w + (FLIP ? (K * K - 1 - (ky * K + kx)) : (ky * K + kx)) * 16);
      const int dx = (kx - R) * D;
#pragma GCC unroll 16
      for (int i = 0; i < S; i++)
        if (i + dx >= 0 && i + dx < S) acc[i] = _mm512_fmadd_ps(wv, _mm512_loadu_ps(r + (i + dx) * 16), acc[i]);
    }
  }
}
template <int K, int D>
static AI void wgrad(const float* x, const float* g, float* gw) {
  constexpr int R = K / 2;
  for (int ky = 0; ky < K; ky++) {
    __m512 a[K];
    for (int k = 0; k < K; k++) a[k] = _mm512_loadu_ps(gw + (ky * K + k) * 16);
    int dy = (ky - R) * D;
    for (int h = 0; h < S; h++) {
      int y = h + dy;
      if (y < 0 || y >= S) continue;
      const float* xr = x + y * S * 16;
      const float* gr = g + h * S * 16;
#pragma GCC unroll 16
      for (int i = 0; i < S; i++) {
        __m512 gv = _mm512_loadu_ps(gr + i * 16);
#pragma GCC unroll 7
        for (int k = 0; k < K; k++) {
          const int dx = (k - R) * D;
          if (i + dx >= 0 && i + dx < S) a[k] = _mm512_fmadd_ps(gv, _mm512_loadu_ps(xr + (i + dx) * 16), a[k]);
        }
      }
    }
    for (int k = 0; k < K; k++) _mm512_storeu_ps(gw + (ky * K + k) * 16, a[k]);
  }
}
static AI void load2(const uint16_t* x, int C, float* a, float* b) {
  for (int p = 0; p < P; p++) {
    _mm512_store_ps(a + p * 16, ld(x + (size_t)p * C));
    _mm512_store_ps(b + p * 16, ld(x + (size_t)p * C + 16));
  }
}
template <int K>
static AI void loadw(const float* w, int C, int c, float* o) {
  for (int t = 0; t < K * K; t++) _mm512_storeu_ps(o + t * 16, _mm512_loadu_ps(w + (size_t)t * C + c));
}

// Fused AVX-512 kernels for TAU training on NHWC bf16 activations, 16x16 planes, C % 32 == 0.
typedef uint16_t bf;
static AI __m512 L(const float* p) { return _mm512_loadu_ps(p); }
static AI void ST(float* p, __m512 v) { _mm512_storeu_ps(p, v); }
static AI __m512 c_(float v) { return _mm512_set1_ps(v); }
static AI __m512 sigm(__m512 x) {  // 1/(1+exp(-x))
  __m512 t = _mm512_mul_ps(x, c_(-1.44269504f));
  t = _mm512_min_ps(_mm512_max_ps(t, c_(-80.f)), c_(80.f));
  __m512 n = _mm512_roundscale_ps(t, 8);
  __m512 f = _mm512_sub_ps(t, n);
  __m512 p = c_(1.33335581e-3f);
  p = _mm512_fmadd_ps(p, f, c_(9.61812911e-3f));
  p = _mm512_fmadd_ps(p, f, c_(5.55041087e-2f));
  p = _mm512_fmadd_ps(p, f, c_(2.40226507e-1f));
  p = _mm512_fmadd_ps(p, f, c_(6.93147181e-1f));
  p = _mm512_fmadd_ps(p, f, c_(1.f));
  __m512 d = _mm512_add_ps(_mm512_scalef_ps(p, n), c_(1.f));
  __m512 r = _mm512_rcp14_ps(d);
  return _mm512_mul_ps(r, _mm512_fnmadd_ps(d, r, c_(2.f)));
}
static AI __m512 gelu_s(__m512 x) {
  __m512 x2 = _mm512_mul_ps(x, x);
  return sigm(_mm512_mul_ps(x, _mm512_fmadd_ps(x2, c_(0.07135481283f), c_(1.59576912f))));
}
static AI __m512 gelu(__m512 x) { return _mm512_mul_ps(x, gelu_s(x)); }
static AI void gelu_fb(__m512 x, __m512& y, __m512& d) {
  __m512 s = gelu_s(x);
  y = _mm512_mul_ps(x, s);
  __m512 z = _mm512_fmadd_ps(_mm512_mul_ps(x, x), c_(0.2140644385f), c_(1.59576912f));
  d = _mm512_fmadd_ps(_mm512_mul_ps(y, _mm512_sub_ps(c_(1.f), s)), z, s);
}
template <int K, int D, bool FLIP>
static AI void planes(const float* src, const float* w, __m512 b, float* dst) {  // fp32 plane -> fp32 plane
  for (int h = 0; h < S; h++) {
    __m512 acc[S];
    plane<K, D, FLIP>(src, w, acc, h);
#pragma GCC unroll 16
    for (int i = 0; i < S; i++) _mm512_store_ps(dst + (h * S + i) * 16, _mm512_add_ps(acc[i], b));
  }
}
template <int K>
static AI void storew(const float* l, int C, int c, float* o) {
  for (int t = 0; t < K * K; t++) ST(o + (size_t)t * C + c, L(l + t * 16));
}
static AI void load2p(const bf* x, int C, float* a, float* b) {
  for (int p = 0; p < P; p++) {
    _mm_prefetch((const char*)(x + (size_t)p * C + 32), _MM_HINT_T1);
    _mm512_store_ps(a + p * 16, ld(x + (size_t)p * C));
    _mm512_store_ps(b + p * 16, ld(x + (size_t)p * C + 16));
  }
}
// 3x3 weight gradient, all 9 taps in registers: gw[9][16] +=
static AI void wgrad3(const float* x, const float* g, float* gw) {
  __m512 a[9];
  for (int k = 0; k < 9; k++) a[k] = L(gw + k * 16);
  for (int h = 0; h < S; h++) {
    const float* gr = g + h * S * 16;
    if (h > 0 && h < S - 1) {
#pragma GCC unroll 16
      for (int i = 0; i < S; i++) {
        __m512 gv = _mm512_load_ps(gr + i * 16);
#pragma GCC unroll 9
        for (int k = 0; k < 9; k++) {
          const int dx = k % 3 - 1, dy = k / 3 - 1;
          if (i + dx >= 0 && i + dx < S)
            a[k] = _mm512_fmadd_ps(gv, _mm512_load_ps(x + ((h + dy) * S + i + dx) * 16), a[k]);
        }
      }
    } else
      for (int ky = 0; ky < 3; ky++) {
        int y = h + ky - 1;
        if (y < 0 || y >= S) continue;
        for (int i = 0; i < S; i++)
          for (int kx = 0; kx < 3; kx++) {
            int X = i + kx - 1;
            if (X >= 0 && X < S)
              a[ky * 3 + kx] =
                  _mm512_fmadd_ps(_mm512_load_ps(gr + i * 16), _mm512_load_ps(x + (y * S + X) * 16), a[ky * 3 + kx]);
          }
      }
  }
  for (int k = 0; k < 9; k++) ST(gw + k * 16, a[k]);
}
#define PL alignas(64) float
extern "C" {
// gate, spatial part: u=gelu(p); e=d7(d5(u)); q=mean_pix(u)
void gate_fwd(const bf* p, const float* w5, const float* b5, const float* w7, const float* b7, bf* u, bf* e, float* q,
              int B, int C) {
  int nb = C / 32;
#pragma omp parallel for collapse(2) schedule(static)
  for (int cb = 0; cb < nb; cb++)
    for (int b = 0; b < B; b++) {
      PL s[2][P * 16], t[P * 16];
      PL l5[25 * 16], l7[49 * 16];
      size_t o = (size_t)b * P * C + cb * 32;
      load2(p + o, C, s[0], s[1]);
      for (int j = 0; j < 2; j++) {
        int c = cb * 32 + j * 16;
        loadw<5>(w5, C, c, l5);
        loadw<7>(w7, C, c, l7);
        __m512 a = c_(0);
        for (int i = 0; i < P; i++) {
          __m512 v = gelu(_mm512_load_ps(s[j] + i * 16));
          _mm512_store_ps(s[j] + i * 16, v);
          a = _mm512_add_ps(a, v);
          st(u + o + (size_t)i * C + j * 16, v);
        }
        ST(q + (size_t)b * C + c, _mm512_mul_ps(a, c_(1.f / P)));
        planes<5, 1, false>(s[j], l5, L(b5 + c), t);
        __m512 bv = L(b7 + c);
        for (int h = 0; h < S; h++) {
          __m512 acc[S];
          plane<7, 3, false>(t, l7, acc, h);
#pragma GCC unroll 16
          for (int i = 0; i < S; i++) st(e + o + (size_t)(h * S + i) * C + j * 16, _mm512_add_ps(acc[i], bv));
        }
      }
    }
}
// ge: grad of e; gu: extra grad of u (bf16); gq: grad of q.  -> gp, gw5,gb5,gw7,gb7, gpb (column sum of gp)
void gate_bwd(const bf* p, const bf* ge, const bf* gu, const float* gq, const float* w5, const float* b5,
              const float* w7, bf* gp, float* gw5, float* gb5, float* gw7, float* gb7, float* gpb, int B, int C) {
  int nb = C / 32;
#pragma omp parallel for schedule(static)
  for (int cb = 0; cb < nb; cb++) {
    PL s[2][P * 16], g[2][P * 16], t[P * 16], t2[P * 16], dg[P * 16];
    PL l5[2][25 * 16], l7[2][49 * 16], a5[2][25 * 16], a7[2][49 * 16];
    __m512 s5[2], s7[2], sp[2];
    memset(a5, 0, sizeof a5);
    memset(a7, 0, sizeof a7);
    for (int j = 0; j < 2; j++) {
      loadw<5>(w5, C, cb * 32 + j * 16, l5[j]);
      loadw<7>(w7, C, cb * 32 + j * 16, l7[j]);
      s5[j] = s7[j] = sp[j] = c_(0);
    }
    for (int b = 0; b < B; b++) {
      size_t o = (size_t)b * P * C + cb * 32;
      load2(p + o, C, s[0], s[1]);
      load2(ge + o, C, g[0], g[1]);
      for (int j = 0; j < 2; j++) {
        int c = cb * 32 + j * 16;
        for (int i = 0; i < P; i++) {
          __m512 y, d;
          gelu_fb(_mm512_load_ps(s[j] + i * 16), y, d);
          _mm512_store_ps(s[j] + i * 16, y);
          _mm512_store_ps(dg + i * 16, d);
          s7[j] = _mm512_add_ps(s7[j], _mm512_load_ps(g[j] + i * 16));
        }
        planes<5, 1, false>(s[j], l5[j], L(b5 + c), t);  // recompute d5 output
        wgrad<7, 3>(t, g[j], a7[j]);
        planes<7, 3, true>(g[j], l7[j], c_(0), t2);  // t2 = grad of d5 output
        for (int i = 0; i < P; i++) s5[j] = _mm512_add_ps(s5[j], _mm512_load_ps(t2 + i * 16));
        wgrad<5, 1>(s[j], t2, a5[j]);
        __m512 q = _mm512_mul_ps(L(gq + (size_t)b * C + c), c_(1.f / P));
        for (int h = 0; h < S; h++) {
          __m512 acc[S];
          plane<5, 1, true>(t2, l5[j], acc, h);
#pragma GCC unroll 16
          for (int i = 0; i < S; i++) {
            size_t k = o + (size_t)(h * S + i) * C + j * 16;
            __m512 v = _mm512_mul_ps(_mm512_add_ps(_mm512_add_ps(acc[i], q), ld(gu + k)),
                                     _mm512_load_ps(dg + (h * S + i) * 16));
            sp[j] = _mm512_add_ps(sp[j], v);
            st(gp + k, v);
          }
        }
      }
    }
    for (int j = 0; j < 2; j++) {
      int c = cb * 32 + j * 16;
      storew<5>(a5[j], C, c, gw5);
      storew<7>(a7[j], C, c, gw7);
      ST(gb5 + c, s5[j]);
      ST(gb7 + c, s7[j]);
      ST(gpb + c, sp[j]);
    }
  }
}
void mid_fwd(const bf* p, const float* w, const float* bias, bf* h_, int B, int C) {  // gelu(dw3(p)+b)
  int nb = C / 32;
#pragma omp parallel for schedule(static)
  for (int b = 0; b < B; b++)
    for (int cb = 0; cb < nb; cb++) {
      PL s[2][P * 16];
      PL l[2][9 * 16];
      size_t o = (size_t)b * P * C + cb * 32;
      load2p(p + o, C, s[0], s[1]);
      __m512 bv[2];
      for (int j = 0; j < 2; j++) {
        loadw<3>(w, C, cb * 32 + j * 16, l[j]);
        bv[j] = L(bias + cb * 32 + j * 16);
      }
      for (int h = 0; h < S; h++) {
        PL tmp[S * 16];
        __m512 acc[S];
        plane<3, 1, false>(s[0], l[0], acc, h);
#pragma GCC unroll 16
        for (int i = 0; i < S; i++) _mm512_store_ps(tmp + i * 16, gelu(_mm512_add_ps(acc[i], bv[0])));
        plane<3, 1, false>(s[1], l[1], acc, h);
#pragma GCC unroll 16
        for (int i = 0; i < S; i++) {
          bf* q = h_ + o + (size_t)(h * S + i) * C;
          st(q, _mm512_load_ps(tmp + i * 16));
          st(q + 16, gelu(_mm512_add_ps(acc[i], bv[1])));
        }
      }
    }
}
void mid_bwd(const bf* p, const bf* gh, const float* w, const float* bias, bf* gp, float* gw, float* gb, float* gpb,
             int B, int C) {
  int nb = C / 32;
  size_t NA = (size_t)11 * C;
  float* ACC = (float*)aligned_alloc(64, NA * 64 * 4);
#pragma omp parallel
  {
    int n = omp_get_num_threads(), t = omp_get_thread_num();
    float* A = ACC + t * NA;
    memset(A, 0, NA * 4);
    PL s[2][P * 16], g[2][P * 16];
    PL l[9 * 16];
#pragma omp for schedule(static)
    for (int b = 0; b < B; b++)
      for (int cb = 0; cb < nb; cb++) {
        size_t o = (size_t)b * P * C + cb * 32;
        load2p(p + o, C, s[0], s[1]);
        load2p(gh + o, C, g[0], g[1]);
        for (int j = 0; j < 2; j++) {
          int c = cb * 32 + j * 16;
          loadw<3>(w, C, c, l);
          __m512 bv = L(bias + c), sb = c_(0), sp = c_(0);
          for (int h = 0; h < S; h++) {
            __m512 acc[S];
            plane<3, 1, false>(s[j], l, acc, h);
#pragma GCC unroll 16
            for (int i = 0; i < S; i++) {
              __m512 y, d;
              gelu_fb(_mm512_add_ps(acc[i], bv), y, d);
              float* q = g[j] + (h * S + i) * 16;
              d = _mm512_mul_ps(d, _mm512_load_ps(q));
              _mm512_store_ps(q, d);
              sb = _mm512_add_ps(sb, d);
            }
          }
          wgrad3(s[j], g[j], A + cb * 32 * 9 + j * 16 * 9);
          for (int h = 0; h < S; h++) {
            __m512 acc[S];
            plane<3, 1, true>(g[j], l, acc, h);
#pragma GCC unroll 16
            for (int i = 0; i < S; i++) {
              sp = _mm512_add_ps(sp, acc[i]);
              _mm512_store_ps(s[j] + (h * S + i) * 16, acc[i]);
            }
          }
          ST(A + 9 * C + c, _mm512_add_ps(L(A + 9 * C + c), sb));
          ST(A + 10 * C + c, _mm512_add_ps(L(A + 10 * C + c), sp));
        }
        for (int i = 0; i < P; i++) {
          st(gp + o + (size_t)i * C, _mm512_load_ps(s[0] + i * 16));
          st(gp + o + (size_t)i * C + 16, _mm512_load_ps(s[1] + i * 16));
        }
      }
#pragma omp single
    {
      for (int k = 1; k < n; k++)
        for (size_t i = 0; i < NA; i++) ACC[i] += ACC[k * NA + i];
      for (int cb = 0; cb < nb * 2; cb++)
        for (int t = 0; t < 9; t++) ST(gw + (size_t)t * C + cb * 16, L(ACC + (size_t)cb * 16 * 9 + t * 16));
      memcpy(gb, ACC + 9 * C, 4 * C);
      memcpy(gpb, ACC + 10 * C, 4 * C);
    }
  }
  free(ACC);
}
void mul_fwd(const bf* s_, const bf* u, const float* sig, bf* g, int B, int C) {
#pragma omp parallel for schedule(static)
  for (int b = 0; b < B; b++)
    for (int i = 0; i < P; i++) {
      size_t o = ((size_t)b * P + i) * C;
      for (int c = 0; c < C; c += 16)
        st(g + o + c, _mm512_mul_ps(L(sig + (size_t)b * C + c), _mm512_mul_ps(ld(s_ + o + c), ld(u + o + c))));
    }
}
void mul_bwd(const bf* gg, const bf* s_, const bf* u, const float* sig, bf* gs, bf* gu, float* gsig, float* gsum, int B,
             int C) {  // gsum [B][C]: per image column sum of gs
#pragma omp parallel for schedule(static)
  for (int b = 0; b < B; b++)
    for (int c = 0; c < C; c += 32) {
      __m512 a[2] = {c_(0), c_(0)}, t[2] = {c_(0), c_(0)},
             sg[2] = {L(sig + (size_t)b * C + c), L(sig + (size_t)b * C + c + 16)};
      for (int i = 0; i < P; i++) {
        size_t o = ((size_t)b * P + i) * C + c;
        for (int j = 0; j < 2; j++) {
          __m512 g = ld(gg + o + j * 16), S1 = ld(s_ + o + j * 16), U = ld(u + o + j * 16),
                 gv = _mm512_mul_ps(g, sg[j]);
          __m512 x = _mm512_mul_ps(gv, U);
          st(gs + o + j * 16, x);
          t[j] = _mm512_add_ps(t[j], x);
          st(gu + o + j * 16, _mm512_mul_ps(gv, S1));
          a[j] = _mm512_fmadd_ps(g, _mm512_mul_ps(S1, U), a[j]);
        }
      }
      for (int j = 0; j < 2; j++) {
        ST(gsig + (size_t)b * C + c + j * 16, a[j]);
        ST(gsum + (size_t)b * C + c + j * 16, t[j]);
      }
    }
}
// xn = x + s*(y+a) (if y) ; batch statistics ; out = bn(xn).   partial sums per thread
void bn_fwd(const float* x, const bf* y, const bf* a, const float* s, const float* w, const float* bb, float* xn,
            bf* out, float* mean, float* var, int M, int C, float eps) {
  std::vector<float> acc(2 * 2 * C * 64);
  float* A = acc.data();
#pragma omp parallel
  {
    int n = omp_get_num_threads(), t = omp_get_thread_num();
    float* q = A + (size_t)t * 2 * C;
    int m0 = (long)M * t / n, m1 = (long)M * (t + 1) / n;
    for (int m = m0; m < m1; m++)
      for (int c = 0; c < C; c += 16) {
        size_t o = (size_t)m * C + c;
        __m512 v = L(x + o);
        if (y) {
          __m512 z = ld(y + o);
          if (a) z = _mm512_add_ps(z, ld(a + o));
          v = _mm512_fmadd_ps(L(s + c), z, v);
          ST(xn + o, v);
        }
        ST(q + c, _mm512_add_ps(L(q + c), v));
        ST(q + C + c, _mm512_fmadd_ps(v, v, L(q + C + c)));
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
        st(out + o, _mm512_fmadd_ps(L(src + o), L(A + c), L(A + C + c)));
      }
  }
}
// gA: grad of bn output; gA2 optional second bf16 grad to add; gX: grad of xn through the residual
void bn_bwd(const bf* gA, const bf* gA2, const float* gX, const float* xn, const float* mean, const float* var,
            const float* w, const bf* y, const bf* a, const float* s, float* gx, bf* gy, float* gw, float* gb,
            float* gs, float* gsum, int M, int C, float eps) {
  std::vector<float> acc((size_t)2 * C * 64 + 4 * C);
  float* A = acc.data();
  float* K = A + (size_t)2 * C * 64;  // K: r, m, c1, c2
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
        __m512 g = ld(gA + o);
        if (gA2) g = _mm512_add_ps(g, ld(gA2 + o));
        __m512 h = _mm512_fmadd_ps(L(xn + o), L(K + c), L(K + C + c));
        ST(q + c, _mm512_add_ps(L(q + c), g));
        ST(q + C + c, _mm512_fmadd_ps(g, h, L(q + C + c)));
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
        __m512 g = ld(gA + o);
        if (gA2) g = _mm512_add_ps(g, ld(gA2 + o));
        __m512 r = L(K + c), h = _mm512_fmadd_ps(L(xn + o), r, L(K + C + c));
        __m512 v = _mm512_fnmadd_ps(h, L(K + 3 * C + c), _mm512_sub_ps(g, L(K + 2 * C + c)));
        v = _mm512_fmadd_ps(v, _mm512_mul_ps(r, L(w + c)), L(gX + o));
        ST(gx + o, v);
        if (y) {
          __m512 z = ld(y + o);
          if (a) z = _mm512_add_ps(z, ld(a + o));
          ST(q + c, _mm512_fmadd_ps(v, z, L(q + c)));
          __m512 e = _mm512_mul_ps(v, L(s + c));
          st(gy + o, e);
          ST(q + C + c, _mm512_add_ps(L(q + C + c), e));
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
void res_fwd(const float* x, const bf* y, const float* s, float* o_, int M, int C) {
#pragma omp parallel for schedule(static)
  for (int m = 0; m < M; m++)
    for (int c = 0; c < C; c += 16) {
      size_t o = (size_t)m * C + c;
      ST(o_ + o, _mm512_fmadd_ps(L(s + c), ld(y + o), L(x + o)));
    }
}
void res_bwd(const float* gX, const bf* y, const float* s, bf* gy, float* gs, float* gsum, int M, int C) {
  std::vector<float> acc((size_t)2 * C * 64);
  float* A = acc.data();
#pragma omp parallel
  {
    int n = omp_get_num_threads(), t = omp_get_thread_num();
    float* q = A + (size_t)t * 2 * C;
    int m0 = (long)M * t / n, m1 = (long)M * (t + 1) / n;
    for (int m = m0; m < m1; m++)
      for (int c = 0; c < C; c += 16) {
        size_t o = (size_t)m * C + c;
        __m512 v = L(gX + o);
        ST(q + c, _mm512_fmadd_ps(v, ld(y + o), L(q + c)));
        __m512 e = _mm512_mul_ps(v, L(s + c));
        st(gy + o, e);
        ST(q + C + c, _mm512_add_ps(L(q + C + c), e));
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
// GroupNorm(2 groups)+SiLU per image, y [N][HW][C] bf16
void gn_fwd(const bf* y, const float* w, const float* bb, bf* o_, float* mr, int N, int HW, int C, float eps) {
#pragma omp parallel for schedule(static)
  for (int n = 0; n < N; n++) {
    float su[256], sq[256];
    PL A[256], Bc[256];
    const bf* Y = y + (size_t)n * HW * C;
    bf* O = o_ + (size_t)n * HW * C;
    for (int c = 0; c < C; c += 16) {
      __m512 a = c_(0), b = c_(0);
      for (int p = 0; p < HW; p++) {
        __m512 v = ld(Y + (size_t)p * C + c);
        a = _mm512_add_ps(a, v);
        b = _mm512_fmadd_ps(v, v, b);
      }
      ST(su + c, a);
      ST(sq + c, b);
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
      __m512 a = L(A + c), b = L(Bc + c);
      for (int p = 0; p < HW; p++) {
        __m512 z = _mm512_fmadd_ps(ld(Y + (size_t)p * C + c), a, b);
        st(O + (size_t)p * C + c, _mm512_mul_ps(z, sigm(z)));
      }
    }
  }
}
void gn_bwd(const bf* y, const bf* go, const float* w, const float* bb, const float* mr, bf* gy, float* gw, float* gb,
            float* gsum, int N, int HW, int C) {  // gw,gb,gsum: [N][C] per image partials
#pragma omp parallel for schedule(static)
  for (int n = 0; n < N; n++) {
    PL R[256], Mn[256], C1[256], C2[256];
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
      __m512 a = c_(0), b = c_(0), r = L(R + c), m = L(Mn + c), ww = L(w + c), bv = L(bb + c);
      for (int p = 0; p < HW; p++) {
        size_t o = (size_t)p * C + c;
        __m512 h = _mm512_fmadd_ps(ld(Y + o), r, m), z = _mm512_fmadd_ps(h, ww, bv), s = sigm(z);
        __m512 d = _mm512_mul_ps(s, _mm512_fmadd_ps(z, _mm512_sub_ps(c_(1.f), s), c_(1.f)));
        d = _mm512_mul_ps(d, ld(G + o));
        st(O + o, d);
        a = _mm512_add_ps(a, d);
        b = _mm512_fmadd_ps(d, h, b);
      }
      ST(Bb + c, a);
      ST(W + c, b);
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
      __m512 r = L(R + c), m = L(Mn + c), ww = L(w + c), k1 = L(C1 + c), k2 = L(C2 + c), t = c_(0);
      for (int p = 0; p < HW; p++) {
        size_t o = (size_t)p * C + c;
        __m512 h = _mm512_fmadd_ps(ld(Y + o), r, m);
        __m512 v = _mm512_mul_ps(r, _mm512_fnmadd_ps(h, k2, _mm512_fmsub_ps(ld(O + o), ww, k1)));
        t = _mm512_add_ps(t, v);
        st(O + o, v);
      }
      ST(gsum + (size_t)n * C + c, t);
    }
  }
}
}
