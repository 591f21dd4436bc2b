#include "ballast/train/layer_probe.h"

#include <algorithm>
#include <cmath>

#include "ballast/kernels/elementwise.h"
#include "ballast/kernels/statistics.h"
#include "ballast/ops/ops.h"

namespace ballast {

namespace {

/// Sequences whose attention is measured: its cost grows with the square of the context.
constexpr std::int64_t kAttentionSequences = 4;

/// A site's name, "blocks.3.attention.qkv", in its parts.
struct SiteName {
    LayerSite place;
    std::string_view block;    ///< "blocks.3"; empty outside the blocks
    std::string_view sublayer; ///< "blocks.3.attention", and "embedding": what changes the stream; else empty

    explicit SiteName(std::string_view site) : place(layer_site(site)) {
        if (site == "embedding") sublayer = site;
        if (!place.layer || place.site == "block") return;
        const std::size_t prefix = site.size() - place.site.size();
        block = site.substr(0, prefix - 1);
        sublayer = site.substr(0, prefix + std::min(place.site.find('.'), place.site.size()));
    }
};

double rms(const float* x, std::int64_t n) { return std::sqrt(sum_of_squares(x, n) / static_cast<double>(n)); }

/// RMS of x [rows, width] times `scale`, which is one factor or one for each column.
double scaled_rms(const float* x, std::int64_t rows, std::int64_t width, const float* scale, std::int64_t factors) {
    double squares = 0;
    for (std::int64_t row = 0; row < rows; ++row)
        for (std::int64_t column = 0; column < width; ++column) {
            const double value =
                static_cast<double>(x[row * width + column]) * static_cast<double>(scale[factors == 1 ? 0 : column]);
            squares += value * value;
        }
    return std::sqrt(squares / static_cast<double>(rows * width));
}

/// `part` over `whole`, and no number where that has no meaning.
std::optional<double> ratio(double part, double whole) {
    if (whole == 0) return {};
    return part / whole;
}

/// Empties a record and keeps its memory.
void reset(LayerRecord& record) {
    for (const LayerField& field : kLayerFields)
        std::visit(
            [&](auto member) {
                auto& value = record.*member;
                if constexpr (requires { value.clear(); })
                    value.clear();
                else
                    value = {};
            },
            field.member);
}

} // namespace

LayerProbe::LayerProbe(const ParamTable& table, const OptimizerConfig& optimizer)
    : table_(table), eps_(optimizer.kind == OptimizerKind::adamw ? optimizer.eps : 0),
      before_(static_cast<std::size_t>(table.size())) {}

LayerRecord& LayerProbe::record_of(std::string_view site) {
    const LayerSite place = layer_site(site);
    for (std::size_t i = count_; i-- > 0;)
        if (records_[i].site == place.site && records_[i].layer == place.layer) return records_[i];
    if (count_ == records_.size()) records_.emplace_back();
    LayerRecord& record = records_[count_++];
    reset(record);
    record.step = step_;
    record.layer = place.layer;
    record.site = place.site;
    return record;
}

void LayerProbe::read_stream(const Tape& tape, std::string_view site, Var stream) {
    const Moments found = moments(tape.data(stream), tape.shape(stream).elements());
    LayerRecord& record = record_of(site);
    record.stream_rms = found.rms;
    record.stream_mean = found.mean;
    record.kurtosis = found.kurtosis;
}

void LayerProbe::read_node(const Tape& tape, const Node& node) {
    const SiteName name(node.site);
    const Var input = node.inputs[0];
    const Shape shape = tape.shape(input);
    const auto rms_of = [&](Var value) { return rms(tape.data(value), tape.shape(value).elements()); };

    if (node.site.ends_with("norm")) {
        LayerRecord& record = record_of(node.site);
        if (!record.input_rms) record.input_rms = rms_of(input); // of the first, where a norm is several ops
    } else if (node.op == &ops::residual_op) {
        const auto scales = node.attributes.as<ops::ResidualAttributes>();
        record_of(name.sublayer).branch_ratio =
            ratio(std::abs(scales.branch_scale) * rms_of(node.inputs[1]), std::abs(scales.skip_scale) * rms_of(input));
    } else if (node.op == &ops::residual_scaled_op) {
        const auto scales = node.attributes.as<ops::ResidualAttributes>();
        const Var branch = node.inputs[1], scale = node.inputs[2];
        const double scaled = scaled_rms(tape.data(branch), tape.shape(branch).rows(), tape.shape(branch).width(),
                                         tape.data(scale), tape.shape(scale).elements());
        record_of(name.sublayer).branch_ratio =
            ratio(std::abs(scales.branch_scale) * scaled, std::abs(scales.skip_scale) * rms_of(input));
    } else if (node.op == &ops::attention_op) {
        const auto attention = node.attributes.as<AttentionShape>();
        LayerRecord& record = record_of(name.sublayer);
        record.max_attention_logit.resize(static_cast<std::size_t>(attention.heads));
        record.attention_entropy.resize(static_cast<std::size_t>(attention.heads));
        attention_statistics(record.max_attention_logit.data(), record.attention_entropy.data(), tape.data(input),
                             attention, kAttentionSequences);
    } else if (node.op == &ops::glu_op) { // the gate comes first
        const std::int64_t units = shape.width() / 2;
        record_of(name.sublayer).dead_share =
            ratio(static_cast<double>(columns_never_positive(tape.data(input), shape.rows(), units, shape.width())),
                  static_cast<double>(units));
    } else if (node.op == &ops::linear_op && node.saved_count > 0) { // with an activation, whose input it saves
        const Shape out = tape.shape(node.output);
        record_of(name.sublayer).dead_share = ratio(
            static_cast<double>(columns_never_positive(tape.data(node.output), out.rows(), out.width(), out.width())),
            static_cast<double>(out.width()));
    }
}

void LayerProbe::activations(std::int64_t step, const Tape& tape) {
    step_ = step;
    count_ = 0;
    SiteName at("");   // where the walk over the tape is
    Var last, entered; // the value before this node, and that with which the block began
    for (const Node& node : tape.nodes()) {
        const SiteName next(node.site);
        if (next.sublayer != at.sublayer && !at.sublayer.empty()) read_stream(tape, at.sublayer, last);
        if (next.block != at.block) {
            if (!at.block.empty() && entered && tape.shape(entered) == tape.shape(last))
                record_of(at.block).angular_distance =
                    mean_angle(tape.data(entered), tape.data(last), tape.shape(last).rows(), tape.shape(last).width());
            entered = last;
        }
        at = next;
        read_node(tape, node);
        last = node.output;
    }
}

void LayerProbe::gradients() {
    constexpr std::string_view kGain = ".gain";
    for (const Param& param : table_.params()) {
        const std::string_view name = param.name;
        if (!name.ends_with(kGain)) continue;
        LayerRecord& record = record_of(name.substr(0, name.size() - kGain.size()));
        const Moments gain = moments(table_.values() + param.offset, param.shape.elements());
        record.gain_mean = gain.mean;
        record.gain_spread = std::sqrt(std::max(0.0, gain.rms * gain.rms - gain.mean * gain.mean));
    }
    first_parameter_ = count_;
    for (const Param& param : table_.params()) {
        const std::int64_t elements = param.shape.elements();
        LayerRecord& record = record_of(param.name);
        const double squares = sum_of_squares(table_.gradients() + param.offset, elements);
        record.gradient_norm = std::sqrt(squares);
        record.gradient_rms = std::sqrt(squares / static_cast<double>(elements));
        if (eps_ > 0) record.gradient_to_eps = *record.gradient_rms / eps_;
        record.parameter_rms = rms(table_.values() + param.offset, elements);
    }
    std::copy_n(table_.values(), table_.size(), before_.begin());
}

void LayerProbe::update() {
    axpby(before_.data(), -1, before_.data(), 1, table_.values(), table_.size());
    for (std::size_t i = 0; i < table_.params().size(); ++i) {
        const Param& param = table_.params()[i];
        LayerRecord& record = records_[first_parameter_ + i];
        record.update_ratio = ratio(rms(before_.data() + param.offset, param.shape.elements()), *record.parameter_rms);
    }
}

} // namespace ballast
