// The quickstart in C++: handles free themselves, errors are exceptions, calls nest.
//
//     wrapper samples/models/digits/model.safetensors DIGITS.csv
#include <array>
#include <cstdio>
#include <exception>
#include <fstream>
#include <weft.hpp>

int main(int argc, char **argv) try {
  if (argc != 3) {
    std::fprintf(stderr, "usage: wrapper MODEL.safetensors DIGITS.csv\n");
    return 2;
  }
  std::array<float, 64> pixels{};
  std::ifstream digits(argv[2]);
  for (float &pixel : pixels) {
    char comma;
    if (!(digits >> pixel >> comma)) {
      std::fprintf(stderr, "%s holds no digit\n", argv[2]);
      return 1;
    }
    pixel /= 16.0f;
  }

  weft::Graph g;
  auto x = g.input("pixels", WEFT_DTYPE_F32, {1, 64});
  auto hidden = g(weft_op_linear, x, g.parameter("layers.0.weight", {64, 64}), g.parameter("layers.0.bias", {64}));
  hidden = g(weft_op_relu, hidden);
  auto logits = g(weft_op_linear, hidden, g.parameter("layers.1.weight", {10, 64}), g.parameter("layers.1.bias", {10}));
  g.output("probabilities", g(weft_op_softmax, logits, int64_t{-1}));

  auto device = weft::Device::open("cpu");
  auto session = device.compile(g).init(weft::Weights::load(argv[1]));
  session.set_input("pixels", pixels.data(), pixels.size());
  session.step();
  auto probabilities = session.read_output("probabilities");
  for (size_t i = 0; i < probabilities.size(); i++) std::printf("%zu %.9g\n", i, probabilities[i]);
  return 0;
} catch (const std::exception &e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 1;
}
