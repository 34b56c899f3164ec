// The small model that the tests of a core share.
#pragma once

#include <gtest/gtest.h>

#include "model.hpp"

namespace moedge::test {

class CoreTest : public testing::Test {
 protected:
  const RecordLayout& layout() const { return model_.layout; }
  // Room for some slots more than the least.
  uint64_t budget_for(uint32_t slots, const Settings& settings = {}) const {
    return least_budget(model_, settings) + slots * layout().record_bytes;
  }

  const Shape shape_{};
  const Model model_ = make_model(shape_);
  Random random_{1};
};

}  // namespace moedge::test
