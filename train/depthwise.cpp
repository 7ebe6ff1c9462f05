// Depthwise convolutions of stride 1 that keep height and width, and the gradient of their weights.
//
// Tensors are N×H×W×C, C a multiple of kLanes; weights are k×k×C. A group of neighbouring pixels
// and of channels is summed up in registers, so that each weight is read once for the group.

#include <cstdint>
#include <cstring>

namespace {

using std::int64_t;

constexpr int kLanes = 8;
typedef float Floats __attribute__((vector_size(4 * kLanes)));
typedef std::uint32_t Words __attribute__((vector_size(4 * kLanes)));
typedef std::uint16_t Halves __attribute__((vector_size(2 * kLanes)));

struct Bfloat16 {
    std::uint16_t bits;
};

struct Shape {
    int64_t images, height, width, channels, dilation;
};

inline Floats load(const float *from) {
    Floats values;
    std::memcpy(&values, from, sizeof values);
    return values;
}

inline Floats load(const Bfloat16 *from) {
    Halves halves;
    std::memcpy(&halves, from, sizeof halves);
    return (Floats)(__builtin_convertvector(halves, Words) << 16);
}

inline void store(float *to, Floats values) { std::memcpy(to, &values, sizeof values); }

inline void store(Bfloat16 *to, Floats values) {
    Words words = (Words)values;
    words = (words + 0x7fff + ((words >> 16) & 1)) >> 16;  // to the nearest, ties to even
    const Halves halves = __builtin_convertvector(words, Halves);
    std::memcpy(to, &halves, sizeof halves);
}

// P neighbouring pixels of V·kLanes channels; `inside` says that no column leaves the picture.
template <int K, int P, int V, typename T>
inline void convolve(const T *x, const float *w, const float *bias, T *y, const Shape &shape,
                     int64_t row, int64_t column, int64_t channel, bool inside) {
    Floats sum[P][V];
    for (int v = 0; v < V; ++v) {
        const Floats start = bias ? load(bias + channel + v * kLanes) : Floats{};
        for (int p = 0; p < P; ++p) sum[p][v] = start;
    }
    for (int i = 0; i < K; ++i) {
        const int64_t r = row + (i - K / 2) * shape.dilation;
        if (r < 0 || r >= shape.height) continue;
        for (int j = 0; j < K; ++j) {
            const int64_t c = column + (j - K / 2) * shape.dilation;
            if (!inside && (c < 0 || c >= shape.width)) continue;
            const T *from = x + (r * shape.width + c) * shape.channels + channel;
            const float *weight = w + (i * K + j) * shape.channels + channel;
            for (int v = 0; v < V; ++v) {
                const Floats factor = load(weight + v * kLanes);
                for (int p = 0; p < P; ++p)
                    sum[p][v] += load(from + p * shape.channels + v * kLanes) * factor;
            }
        }
    }
    T *to = y + (row * shape.width + column) * shape.channels + channel;
    for (int p = 0; p < P; ++p)
        for (int v = 0; v < V; ++v) store(to + p * shape.channels + v * kLanes, sum[p][v]);
}

template <int K, int P, typename T>
inline void all_channels(const T *x, const float *w, const float *bias, T *y, const Shape &shape,
                         int64_t row, int64_t column, bool inside) {
    int64_t c = 0;
    for (; c + 2 * kLanes <= shape.channels; c += 2 * kLanes)
        convolve<K, P, 2>(x, w, bias, y, shape, row, column, c, inside);
    for (; c < shape.channels; c += kLanes)
        convolve<K, P, 1>(x, w, bias, y, shape, row, column, c, inside);
}

template <int K, typename T>
void forward(const T *x, const float *w, const float *bias, T *y, Shape shape, int threads) {
    constexpr int64_t together = 4;
    const int64_t plane = shape.height * shape.width * shape.channels;
    const int64_t edge = K / 2 * shape.dilation;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t line = 0; line < shape.images * shape.height; ++line) {
        const int64_t start = line / shape.height * plane, row = line % shape.height;
        const T *from = x + start;
        T *to = y + start;
        int64_t c = 0;
        for (; c < shape.width && c < edge; ++c)
            all_channels<K, 1>(from, w, bias, to, shape, row, c, false);
        for (; c + together + edge <= shape.width; c += together)
            all_channels<K, together>(from, w, bias, to, shape, row, c, true);
        for (; c < shape.width; ++c)
            all_channels<K, 1>(from, w, bias, to, shape, row, c, false);
    }
}

// Adds the inner products of one line of the gradient with K shifted windows of a line of x.
template <int K, typename T>
inline void multiply(const T *x, const T *grad, float *out, const Shape &shape) {
    Floats sum[K] = {};
    const int64_t reach = K / 2 * shape.dilation;
    for (int64_t column = 0; column < shape.width; ++column) {
        const Floats factor = load(grad + column * shape.channels);
        if (column >= reach && column + reach < shape.width) {
            const T *from = x + (column - reach) * shape.channels;
            for (int j = 0; j < K; ++j)
                sum[j] += load(from + j * shape.dilation * shape.channels) * factor;
        } else {
            for (int j = 0; j < K; ++j) {
                const int64_t c = column + j * shape.dilation - reach;
                if (c >= 0 && c < shape.width) sum[j] += load(x + c * shape.channels) * factor;
            }
        }
    }
    for (int j = 0; j < K; ++j)
        store(out + j * shape.channels, load(out + j * shape.channels) + sum[j]);
}

// Writes N×k×k×C: each image apart, so that the sum does not depend on the number of threads.
template <int K, typename T>
void gradient(const T *x, const T *grad, float *out, Shape shape, int threads) {
    const int64_t plane = shape.height * shape.width * shape.channels;
    const int64_t weights = K * K * shape.channels;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t n = 0; n < shape.images; ++n) {
        float *to = out + n * weights;
        std::memset(to, 0, sizeof(float) * weights);
        for (int64_t row = 0; row < shape.height; ++row) {
            const T *line = grad + n * plane + row * shape.width * shape.channels;
            for (int i = 0; i < K; ++i) {
                const int64_t r = row + (i - K / 2) * shape.dilation;
                if (r < 0 || r >= shape.height) continue;
                const T *from = x + n * plane + r * shape.width * shape.channels;
                for (int64_t c = 0; c < shape.channels; c += kLanes)
                    multiply<K>(from + c, line + c, to + i * K * shape.channels + c, shape);
            }
        }
    }
}

}  // namespace

#define SRDEPLOY_DEPTHWISE(K, NAME, T)                                                           \
    extern "C" void forward_##K##_##NAME(const T *x, const float *w, const float *bias, T *y,    \
                                         const Shape *shape, int threads) {                      \
        forward<K>(x, w, bias, y, *shape, threads);                                              \
    }                                                                                            \
    extern "C" void gradient_##K##_##NAME(const T *x, const T *grad, float *out,                 \
                                          const Shape *shape, int threads) {                     \
        gradient<K>(x, grad, out, *shape, threads);                                              \
    }

SRDEPLOY_DEPTHWISE(3, float32, float)
SRDEPLOY_DEPTHWISE(5, float32, float)
SRDEPLOY_DEPTHWISE(7, float32, float)
SRDEPLOY_DEPTHWISE(3, bfloat16, Bfloat16)
SRDEPLOY_DEPTHWISE(5, bfloat16, Bfloat16)
SRDEPLOY_DEPTHWISE(7, bfloat16, Bfloat16)
