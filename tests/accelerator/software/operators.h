// Any operator of torch: its kernel of the processor, in the queue of a stream.
#pragma once
#include <ATen/EmptyTensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty_strided.h>
#include <ATen/ops/from_blob.h>

#include "devices.h"

namespace {
bool is_here(const Tensor& tensor) { return tensor.defined() && tensor.device().type() == KIND; }

// What a task needs of a tensor: the tensor itself may be freed before the task runs.
struct Seen {
  void* data;
  std::vector<int64_t> sizes, strides;
  at::TensorOptions options;
  bool is_conj, is_neg;
  explicit Seen(const Tensor& tensor)
      : data(tensor.numel() ? const_cast<void*>(tensor.unsafeGetTensorImpl()->data()) : nullptr),
        sizes(tensor.sizes().vec()), strides(tensor.strides().vec()),
        options(at::TensorOptions().dtype(tensor.dtype())), is_conj(tensor.is_conj()), is_neg(tensor.is_neg()) {}
  Tensor on_host() const {
    Tensor seen = at::from_blob(data, sizes, strides, options);
    if (is_conj) seen._set_conj(true);
    if (is_neg) seen._set_neg(true);
    return seen;
  }
};
void used_by(Where where, const Tensor& tensor) {
  std::lock_guard hold(everything);
  auto found = blocks.find(const_cast<void*>(tensor.storage().data()));
  if (found != blocks.end() && found->second.where != where) found->second.readers.insert(where);
}

// Replace the tensors of a value, also those of a list.
IValue mapped(const IValue& value, const std::function<IValue(const Tensor&)>& change) {
  if (value.isTensor()) return value.toTensor().defined() ? change(value.toTensor()) : value;
  if (!value.isList()) return value;
  auto list = value.toList();
  bool has_tensors = false;
  auto copy = list.copy();
  for (size_t place = 0; place < list.size(); ++place) {
    IValue element = list.get(place);
    if (!element.isTensor()) continue;
    copy.set(place, mapped(element, change));
    has_tensors = true;
  }
  return has_tensors ? IValue(copy) : value;
}
void each_tensor(const IValue& value, const std::function<void(const Tensor&)>& see) {
  mapped(value, [&](const Tensor& tensor) {
    see(tensor);
    return IValue(tensor);
  });
}
Tensor view_of(const Tensor& base, const Tensor& seen) {
  auto* start = static_cast<const char*>(base.storage().data());
  auto offset = static_cast<const char*>(seen.unsafeGetTensorImpl()->data()) - start;
  auto result = at::detail::make_tensor<c10::TensorImpl>(
      c10::TensorImpl::VIEW, c10::Storage(base.storage()), base.key_set(), seen.dtype());
  result.unsafeGetTensorImpl()->set_sizes_and_strides(
      seen.sizes(), seen.strides(), seen.numel() ? offset / int64_t(seen.element_size()) : 0);
  return result;
}
std::vector<IValue> call(const c10::OperatorHandle& op, std::vector<IValue> arguments) {
  op.callBoxed(&arguments);
  return arguments;
}

// Run any operator: at once what returns views or numbers or draws random numbers, in its stream all else.
void run_operator(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  std::vector<IValue> given(stack->end() - schema.arguments().size(), stack->end());
  torch::jit::drop(*stack, given.size());
  int device = -1;
  std::vector<Tensor> tensors;
  for (auto& argument : given)
    each_tensor(argument, [&](const Tensor& tensor) {
      tensors.push_back(tensor);
      if (!is_here(tensor)) return;
      TORCH_CHECK(device < 0 || device == tensor.device().index(), schema.operator_name(),
                  ": tensors are on two devices of the software accelerator");
      device = tensor.device().index();
    });
  bool takes_indices = schema.name().find("aten::index") == 0 || schema.name() == "aten::_index_put_impl_";
  for (auto& tensor : tensors)
    TORCH_CHECK(device < 0 || is_here(tensor) || tensor.dim() == 0 || takes_indices, schema.operator_name(),
                ": one tensor is on the software accelerator, another of ", tensor.dim(), " dimensions on ",
                tensor.device());
  bool is_random = op.hasTag(at::Tag::nondeterministic_seeded);
  bool is_view = false, is_in_place = !schema.returns().empty(), is_immediate = device < 0 || is_random;
  for (auto& returned : schema.returns()) {
    auto* alias = returned.alias_info();
    is_view |= alias != nullptr && !alias->isWrite();
    is_in_place &= alias != nullptr && alias->isWrite();
    is_immediate |= returned.type()->kind() != c10::TypeKind::TensorType &&
                    returned.type()->str() != "Tensor[]";
  }
  for (size_t place = 0; place < given.size(); ++place) {
    auto kind = schema.arguments()[place].type()->str();
    if (kind.find("Device") == 0 && given[place].isDevice()) {
      if (device < 0) device = given[place].toDevice().index();
      given[place] = Device(c10::DeviceType::CPU);
    }
  }
  if (device < 0) device = current;
  c10::DeviceGuard guard(Device(KIND, device));
  Where where = stream_of(device);
  {
    std::lock_guard hold(everything);
    ++calls[schema.name() + ":" + std::to_string(device)];
  }
  std::vector<IValue> outputs;
  if (is_in_place)  // in their order, tensors that are written are what is returned
    for (size_t place = 0; place < given.size(); ++place) {
      auto* alias = schema.arguments()[place].alias_info();
      if (alias != nullptr && alias->isWrite()) outputs.push_back(given[place]);
    }
  // Numbers of the host are read now.
  auto seen = [&](const Tensor& tensor) -> IValue {
    return is_here(tensor) ? IValue(Seen(tensor).on_host()) : IValue(tensor.clone());
  };
  if (is_view) {
    Outside outside;
    std::vector<IValue> arguments;
    for (auto& argument : given) arguments.push_back(mapped(argument, seen));
    stack->push_back(view_of(tensors.at(0), call(op, arguments).at(0).toTensor()));
    return;
  }
  bool is_sized = true;  // an `out=` without elements gets its shape from the operator
  for (auto& output : outputs)
    each_tensor(output, [&](const Tensor& tensor) { is_sized &= tensor.numel() > 0; });
  std::vector<IValue> shapes;
  if (!is_immediate && (!is_in_place || !is_sized)) {
    Outside outside;
    std::vector<IValue> arguments;
    for (auto& argument : given)
      arguments.push_back(mapped(argument, [&](const Tensor& tensor) -> IValue {
        if (!is_here(tensor)) return tensor;
        auto meta = tensor.options().device(c10::DeviceType::Meta);
        return at::empty_strided(tensor.sizes(), tensor.strides(), meta);
      }));
    try {
      shapes = call(op, arguments);
    } catch (const std::exception&) {
      is_immediate = true;  // its shapes depend on its numbers, or it fails for a reason
    }
  }
  if (!is_immediate && is_in_place && !is_sized)
    for (size_t place = 0; place < outputs.size(); ++place)
      if (outputs[place].isTensor()) outputs[place].toTensor().resize_(shapes[place].toTensor().sizes());
  if (!is_in_place && !is_immediate)
    for (auto& shape : shapes)
      outputs.push_back(mapped(shape, [&](const Tensor& meta) -> IValue {
        auto here = meta.options().device(Device(KIND, device));
        return at::empty_strided(meta.sizes(), meta.strides(), here);
      }));
  for (auto* values : {&given, &outputs})
    for (auto& value : *values)
      each_tensor(value, [&](const Tensor& tensor) {
        if (is_here(tensor)) used_by(where, tensor);
      });
  if (is_immediate) {
    run_all(where);
    Outside outside;
    std::vector<IValue> arguments;
    auto source = generator_of(DeviceIndex(device));
    for (auto& argument : given) {
      if (argument.isGenerator()) source = argument.toGenerator();
      arguments.push_back(argument.isGenerator() ? IValue() : mapped(argument, seen));
    }
    // The operator draws from the generator of the processor, which stands in for that of the device.
    auto stand_in = at::detail::getDefaultCPUGenerator();
    auto before = stand_in.get_state();
    if (is_random) stand_in.set_state(source.get_state());
    auto results = call(op, arguments);
    if (is_random) source.set_state(stand_in.get_state());
    if (is_random) stand_in.set_state(before);
    for (size_t place = 0; place < results.size(); ++place)
      stack->push_back(is_in_place ? outputs[place] : mapped(results[place], [&](const Tensor& host) -> IValue {
        Tensor here = at::empty_strided(host.sizes(), host.strides(), host.options().device(Device(KIND, device)));
        Seen(here).on_host().copy_(host);
        return here;
      }));
    return;
  }
  // The views do not own memory: they are made now and used when the task runs.
  auto as_seen = [&](std::vector<IValue> values) {
    for (auto& value : values) value = mapped(value, seen);
    return values;
  };
  std::vector<IValue> arguments, targets;
  {
    Outside outside;
    arguments = as_seen(given);
    if (!is_in_place) targets = as_seen(outputs);
  }
  submit(where, [op, arguments, targets] {
    auto results = call(op, arguments);
    for (size_t place = 0; place < targets.size(); ++place) {
      std::vector<Tensor> from, to;
      each_tensor(results[place], [&](const Tensor& tensor) { from.push_back(tensor); });
      each_tensor(targets[place], [&](const Tensor& tensor) { to.push_back(tensor); });
      for (size_t each = 0; each < to.size(); ++each) to[each].copy_(from.at(each));
    }
  });
  for (auto& output : outputs) stack->push_back(output);
}
}  // namespace
