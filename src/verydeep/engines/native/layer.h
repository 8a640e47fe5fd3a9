// What the engine knows of a layer, whatever processor its code is for.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

namespace verydeep {

constexpr int LANES = 16;  // channels of a block, on every processor, so that layouts do not depend on it

inline long blocks_of(long channels) { return (channels + LANES - 1) / LANES; }

// Activations are laid out [images][blocks of 16 channels][height][width][16], the last block padded with zeros.
struct Shape {
  long images, channels, height, width;
  long floats() const { return images * blocks_of(channels) * height * width * LANES; }
};

enum Kind { FIRST, WINOGRAD, WINDOW, POOL };

struct Spec {
  Kind kind;
  long in, out, kernel;
  const float* weights;  // out x in x kernel x kernel
  const float* bias;     // out
  bool rectify;  // whether a ReLU follows
  bool pool;     // whether a 2x2 max-pool of stride 2 follows that; WINOGRAD only
  bool low;      // whether in less precision: WINDOW keeps its weights in half, WINOGRAD multiplies 16-bit integers
};

// One thread's part in running a layer.
struct Part {
  int thread, threads;
  bool up;                    // whether a pool makes an output of an odd side's last line, or drops it
  float* own;                 // scratch of this thread
  float* shared;              // scratch of all
  std::atomic<long>* counter; // from 0, for sharing out work
  long take() const { return counter->fetch_add(1, std::memory_order_relaxed); }
};

struct Layer {
  virtual ~Layer() = default;
  virtual Shape shape(const Shape& in, bool up) const = 0;
  virtual long own_scratch(const Shape& in, int threads) const = 0;     // in floats
  virtual long shared_scratch(const Shape& in, int threads) const = 0;  // in floats
  virtual void run(const float* in, const Shape& shape, float* out, const Part& part) const = 0;
};

// A 3x3 convolution in training, with the ReLU and the 2x2 max-pool that may follow. Maps are [images][height][width]
// [channels], the channels filled up to whole blocks, but those of `pixels`.
struct Convolution {
  long images, in, out, height, width;
  int rectify, pool, up;
  const float* pixels;   // its input
  const float* weights;  // out x in x 3 x 3
  const float* bias;     // out, or none
  float* result;         // what came out of all
  uint8_t* choice;       // with a pool: which of the four each number of `result` is, or 4 where none is positive
  const float* gradient;    // of `result`
  float* pixel_gradient;    // of `pixels`
  float* weight_gradient;   // of `weights`
  float* bias_gradient;     // of `bias`: out, filled up to whole blocks
  Shape before() const { return {images, in, height, width}; }
  Shape unpooled() const { return {images, out, height, width}; }
  Shape after() const { return pool ? Shape{images, out, (height + up) / 2, (width + up) / 2} : unpooled(); }
};

enum Pass { FORWARD, TO_PIXELS, TO_WEIGHTS };

// Batch norm in training, with the ReLU and perhaps the 2x2 max-pool behind it. Maps and numbers of channels are filled up
// to whole blocks.
struct Norm {
  long images, channels, height, width;
  int pool, up;
  float epsilon;
  const float* input;
  const float* weights;  // of channels, as the following
  const float* bias;
  float* mean;           // of the input, found by the pass forward; so are all of these
  float* variance;       // sums of squares divided by the count
  float* factor;         // what the input is multiplied by
  float* added;          // and what is added
  float* result;         // what came out of all
  uint8_t* choice;       // as a convolution's
  const float* gradient;  // of `result`
  float* input_gradient;
  float* weight_gradient;
  float* bias_gradient;
  Shape before() const { return {images, channels, height, width}; }
  Shape after() const { return pool ? Shape{images, channels, (height + up) / 2, (width + up) / 2} : before(); }
};

// One of its passes, ready to run.
struct Work {
  virtual ~Work() = default;
  virtual long own_scratch(int threads) const = 0;     // in floats
  virtual long shared_scratch(int threads) const = 0;  // in floats
  virtual void run(const Part& part) const = 0;
};

using Train = std::unique_ptr<Work> (*)(const Convolution&, Pass);
using Normalize = std::unique_ptr<Work> (*)(const Norm&, bool back);
using Make = std::unique_ptr<Layer> (*)(const Spec&);

}  // namespace verydeep
