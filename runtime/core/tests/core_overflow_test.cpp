// Values that become too large between the two matrices of an expert.
#include <gtest/gtest.h>

#include "core.hpp"
#include "model.hpp"

namespace moedge::test {
namespace {

class Overflow : public testing::TestWithParam<Quantization> {};

INSTANTIATE_TEST_SUITE_P(, Overflow,
                         testing::Values(Quantization{4, 32, false}, Quantization{8, 64, true},
                                         Quantization{32, 32, true}),
                         [](const auto& test) { return "Bits" + std::to_string(test.param.bits); });

TEST_P(Overflow, InsideAnExpertIsRefusedAndTheNextCallWorks) {
  const Shape shape{.quantization = GetParam()};
  const Model model = make_model(shape);
  Random random(1);
  for (const uint32_t tokens : {1, 20}) {
    Settings settings;
    settings.budget_bytes = least_budget(model, settings) + 3 * model.layout.record_bytes;
    Machine machine(model, settings);
    const Call good = make_call(shape, 0, tokens, random);
    const auto wanted = run(*machine.core, shape, {good});
    Call large = good;
    // Of the last token only; the inputs and their products with fc1 are still finite.
    for (uint32_t i = 0; i < shape.hidden; ++i) large.input[(tokens - 1) * shape.hidden + i] *= 1e30F;
    try {
      compute(*machine.core, shape, large);
      ADD_FAILURE() << "it was accepted";
    } catch (const CoreError& error) {
      EXPECT_EQ(error.status, MOEDGE_BAD_INPUT);
      EXPECT_STREQ(error.what(), "an activation inside an expert is not finite");
    }
    EXPECT_EQ(run(*machine.core, shape, {good}), wanted);
  }
}

}  // namespace
}  // namespace moedge::test
