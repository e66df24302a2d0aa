// Weft for C++17: the C header with handles that free themselves and errors that are thrown. Nothing else: what is not
// here is called through get(). The threads' and owners' rules are the C header's.
#ifndef WEFT_HPP
#define WEFT_HPP

#include "weft.h"

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace weft {

/// What a call of the library that failed throws.
class Error : public std::runtime_error {
 public:
  Error(weft_status status, const std::string &message) : std::runtime_error(message), status_(status) {}
  /// One of WEFT_STATUS_….
  weft_status status() const noexcept { return status_; }

 private:
  weft_status status_;
};

/// Throws what a call said, and frees its error.
inline void check(weft_status status, weft_error *error) {
  if (status == WEFT_STATUS_OK) return;
  weft_str text = weft_error_message(error);
  std::string message = error ? std::string(text.data, text.length) : weft_status_name(status);
  weft_error_free(error);
  throw Error(status, message);
}

/// Calls a function of the header with its arguments but for the last, `err`; throws where it fails.
template <class F, class... A>
void call(F function, A... arguments) {
  weft_error *error = nullptr;
  weft_status status = function(arguments..., &error);
  check(status, error);
}

/// A handle that frees itself.
template <class T, weft_status (*Free)(T *)>
class Handle {
 public:
  Handle() = default;
  explicit Handle(T *owned) : owned_(owned) {}
  /// The handle, still owned.
  T *get() const noexcept { return owned_.get(); }

 protected:
  struct Frees {
    void operator()(T *handle) const noexcept { Free(handle); }
  };
  std::unique_ptr<T, Frees> owned_;
};

/// Calls a function that gives a handle as its last result, and owns it.
template <class H, class T, class F, class... A>
H made(F function, A... arguments) {
  T *handle = nullptr;
  call(function, arguments..., &handle);
  return H(handle);
}

/// Bytes that the library made.
class Bytes : public Handle<weft_bytes, weft_bytes_free> {
 public:
  using Handle::Handle;
  /// Valid as long as the object.
  std::string_view view() const {
    const uint8_t *data = nullptr;
    size_t length = 0;
    call(weft_bytes_data, get(), &data, &length);
    return {reinterpret_cast<const char *>(data), length};
  }
};

/// Named tensors.
class Weights : public Handle<weft_weights, weft_weights_free> {
 public:
  using Handle::Handle;
  /// None, to be inserted.
  static Weights empty() { return made<Weights, weft_weights>(weft_weights_new); }
  /// A safetensors file, a Hugging Face folder, or the index of a sharded set.
  static Weights load(std::string_view path) {
    return made<Weights, weft_weights>(weft_weights_load, path.data(), path.size());
  }
  /// As load, with the floats in one dtype of floats.
  static Weights load_as(std::string_view path, weft_dtype dtype) {
    return made<Weights, weft_weights>(weft_weights_load_as, path.data(), path.size(), dtype);
  }
  /// The same weights with their floats in one dtype of floats.
  Weights to_dtype(weft_dtype dtype) const { return made<Weights, weft_weights>(weft_weights_to_dtype, get(), dtype); }
  /// Adds an f32 tensor; its elements are copied.
  void insert(std::string_view name, std::initializer_list<size_t> shape, const float *data, size_t count) {
    call(weft_weights_insert, get(), name.data(), name.size(), weft_dtype{WEFT_DTYPE_F32}, shape.begin(), shape.size(),
         static_cast<const void *>(data), count * sizeof(float));
  }
  /// Writes a safetensors file.
  void save(std::string_view path) const { call(weft_weights_save, get(), path.data(), path.size()); }
};

/// A graph under construction.
class Graph : public Handle<weft_graph, weft_graph_free> {
 public:
  using Value = weft_value;
  Graph() : Handle(made<Graph, weft_graph>(weft_graph_new)) {}
  explicit Graph(weft_graph *owned) : Handle(owned) {}
  /// Reads a text form.
  static Graph parse(std::string_view text) {
    return made<Graph, weft_graph>(weft_graph_parse, text.data(), text.size());
  }
  /// The text form.
  Bytes text() const { return made<Bytes, weft_bytes>(weft_graph_text, get()); }
  /// An input.
  Value input(std::string_view name, weft_dtype dtype, std::initializer_list<size_t> shape) {
    return value(weft_graph_input, name.data(), name.size(), dtype, shape.begin(), shape.size());
  }
  /// A trainable f32 weight.
  Value parameter(std::string_view name, std::initializer_list<size_t> shape) {
    return value(weft_graph_parameter, name.data(), name.size(), weft_dtype{WEFT_DTYPE_F32}, shape.begin(), shape.size(), true);
  }
  /// Makes a value a result.
  void output(std::string_view name, Value result) {
    call(weft_graph_output, get(), name.data(), name.size(), result);
  }
  /// Makes a value what training makes small.
  void set_loss(Value loss) { call(weft_graph_set_loss, get(), loss); }
  /// Applies an operation: g(weft_op_softmax, x, int64_t{-1}).
  template <class F, class... A>
  Value operator()(F operation, A... arguments) {
    return value(operation, arguments...);
  }

 private:
  template <class F, class... A>
  Value value(F function, A... arguments) {
    Value out = WEFT_VALUE_NONE;
    call(function, get(), arguments..., &out);
    return out;
  }
};

/// Weights on a device, which sessions share.
class Parameters : public Handle<weft_parameters, weft_parameters_free> {
 public:
  using Handle::Handle;
  /// As they are now, to save.
  Weights to_weights() const { return made<Weights, weft_weights>(weft_parameters_to_weights, get()); }
};

/// What steps leave for the steps after them, by name: a set that sessions share.
class States : public Handle<weft_states, weft_states_free> {
 public:
  using Handle::Handle;
  /// Copies a state's elements into memory of exactly its bytes.
  void read(std::string_view name, void *data, size_t bytes) const {
    call(weft_states_read, get(), name.data(), name.size(), data, bytes);
  }
  /// Gives a state its elements.
  void write(std::string_view name, const void *data, size_t bytes) {
    call(weft_states_write, get(), name.data(), name.size(), data, bytes);
  }
  /// Makes every state zeros.
  void reset() { call(weft_states_reset, get()); }
  /// All of one moment, to be restored later.
  Weights save() const { return made<Weights, weft_weights>(weft_states_save, get()); }
  /// Makes them what was saved.
  void restore(const Weights &saved) { call(weft_states_restore, get(), saved.get()); }
};

/// A compiled graph with weights.
class Session : public Handle<weft_session, weft_session_free> {
 public:
  using Handle::Handle;
  /// Gives an f32 input its elements; they are copied.
  void set_input(std::string_view name, const float *data, size_t count) {
    set_input(name, WEFT_DTYPE_F32, data, count * sizeof(float));
  }
  /// Gives an input its elements; they are copied.
  void set_input(std::string_view name, weft_dtype dtype, const void *data, size_t bytes) {
    call(weft_session_set_input, get(), name.data(), name.size(), dtype, data, bytes);
  }
  /// Runs the graph once.
  void step() { call(weft_session_step, get()); }
  /// Returns when every step is done.
  void wait() { call(weft_session_wait, get()); }
  /// An f32 output's elements.
  std::vector<float> read_output(std::string_view name) {
    const void *data = nullptr;
    size_t bytes = 0;
    call(weft_session_lend_output, get(), name.data(), name.size(), &data, &bytes);
    const float *elements = static_cast<const float *>(data);
    return {elements, elements + bytes / sizeof(float)};
  }
  /// The loss of the last step.
  float loss() const {
    float value = 0;
    call(weft_session_loss, get(), &value);
    return value;
  }
  /// Makes every later step change the parameters.
  void set_optimizer(const weft_optimizer &optimizer) { call(weft_session_set_optimizer, get(), &optimizer); }
  /// As above, by name ("adamw"), with settings: set_optimizer("adamw", 1e-3f, {{"weight_decay", 0.1f}}).
  void set_optimizer(std::string_view name, float learning_rate,
                     std::initializer_list<std::pair<std::string_view, float>> settings = {}) {
    std::vector<weft_setting> all;
    for (const auto &s : settings) all.push_back({{s.first.data(), s.first.size()}, s.second, 0});
    call(weft_session_set_optimizer_named, get(), name.data(), name.size(), learning_rate,
         static_cast<const weft_setting *>(all.data()), all.size(), static_cast<const weft_parameter_group *>(nullptr),
         size_t{0});
  }
  /// The weights, to share with another session or to save.
  Parameters parameters() const { return made<Parameters, weft_parameters>(weft_session_parameters, get()); }
  /// The states, to share with another session or to save.
  States states() const { return made<States, weft_states>(weft_session_states, get()); }
  /// What the optimizer keeps, to be saved with the parameters.
  Weights save_optimizer() const { return made<Weights, weft_weights>(weft_session_save_optimizer, get()); }
  /// Goes on from what was saved; set the optimizer before.
  void restore_optimizer(const Weights &states) { call(weft_session_restore_optimizer, get(), states.get()); }
};

/// A compiled graph without weights.
class Compiled : public Handle<weft_compiled, weft_compiled_free> {
 public:
  using Handle::Handle;
  /// A session over weights.
  Session init(const Weights &weights) const {
    return made<Session, weft_session>(weft_compiled_init, get(), weights.get());
  }
  /// A session over the weights of another, shared with it.
  Session init_shared(const Parameters &parameters) const {
    return made<Session, weft_session>(weft_compiled_init_shared, get(), parameters.get());
  }
  /// The same; parameters that the set lacks are taken from `weights` and join it.
  Session init_shared_with(const Parameters &parameters, const Weights &weights) const {
    return made<Session, weft_session>(weft_compiled_init_shared_with, get(), parameters.get(), weights.get());
  }
  /// A session over weights and states of others, shared with them.
  Session init_shared_states(const Parameters &parameters, const States &states) const {
    return made<Session, weft_session>(weft_compiled_init_shared_states, get(), parameters.get(),
                                       static_cast<const weft_weights *>(nullptr), states.get());
  }
  /// A session whose parameters are zeros.
  Session init_zeros() const { return made<Session, weft_session>(weft_compiled_init_zeros, get()); }
  /// Writes it to a file.
  void save(std::string_view path) const { call(weft_compiled_save, get(), path.data(), path.size()); }
};

/// An open device.
class Device : public Handle<weft_device, weft_device_free> {
 public:
  using Handle::Handle;
  /// "best", "cpu", "gpu", or a name.
  static Device open(std::string_view which = "best", uint32_t threads = 0) {
    return made<Device, weft_device>(weft_device_open, which.data(), which.size(), threads);
  }
  /// An empty set of states.
  States states() const { return made<States, weft_states>(weft_states_new, get()); }
  /// Compiles a graph; `options` may be null.
  Compiled compile(const Graph &graph, const weft_compile_options *options = nullptr) const {
    return made<Compiled, weft_compiled>(weft_compile, get(), graph.get(), options);
  }
  /// Loads a compiled graph.
  Compiled load(std::string_view path) const {
    return made<Compiled, weft_compiled>(weft_compiled_load, get(), path.data(), path.size());
  }
};

}  // namespace weft

#endif
