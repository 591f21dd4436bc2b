#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "ballast/autograd/tape.h"
#include "ballast/config/config.h"
#include "ballast/nn/params.h"
#include "ballast/train/layer_record.h"

namespace ballast {

/// Measures every layer in one training step. It reads the values of the pass off the tape, by the sites that modules
/// give their nodes, and changes nothing: a probed step has the bits of one that is not.
class LayerProbe {
public:
    /// `table` has gradients and outlives the probe, which takes memory for one more copy of the parameters.
    LayerProbe(const ParamTable& table, const OptimizerConfig& optimizer);

    /// First, when the forward pass has been recorded and backward() has not reused its memory.
    void activations(std::int64_t step, const Tape& tape);
    /// When all gradients are there. Keeps the parameters, to see the update.
    void gradients();
    /// After the update. Without it, records have no update_ratio.
    void update();

    /// What was measured since activations(): sites in the order of the pass, then parameters in that of the table.
    std::span<const LayerRecord> records() const { return {records_.data(), count_}; }

private:
    LayerRecord& record_of(std::string_view site);
    void read_node(const Tape& tape, const Node& node);
    void read_stream(const Tape& tape, std::string_view site, Var stream);

    const ParamTable& table_;
    double eps_ = 0; ///< of Adam; 0: another optimizer
    std::int64_t step_ = 0;
    std::vector<LayerRecord> records_; ///< the first count_ are in use; the others keep their memory
    std::size_t count_ = 0;
    std::size_t first_parameter_ = 0; ///< index of the first record that is a parameter's
    std::vector<float> before_;       ///< parameters before the update
};

} // namespace ballast
