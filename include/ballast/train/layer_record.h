#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace ballast {

/// What a probe has measured at one place of the network: one line of layers.jsonl. kLayerFields says what each member
/// means. A member is there where it applies.
struct LayerRecord {
    std::int64_t step = 0;
    std::optional<std::int64_t> layer;
    std::string site;
    std::optional<double> stream_rms;
    std::optional<double> stream_mean;
    std::optional<double> kurtosis;
    std::optional<double> branch_ratio;
    std::optional<double> angular_distance;
    std::optional<double> input_rms;
    std::optional<double> gain_mean;
    std::optional<double> gain_spread;
    std::vector<double> max_attention_logit;
    std::vector<double> attention_entropy;
    std::optional<double> dead_share;
    std::optional<double> gradient_rms;
    std::optional<double> gradient_norm;
    std::optional<double> gradient_to_eps;
    std::optional<double> parameter_rms;
    std::optional<double> update_ratio;
};

/// A member of LayerRecord: its name in JSON, its unit ("" for a pure number), a sentence, and where it comes from.
struct LayerField {
    using Member = std::variant<std::int64_t LayerRecord::*, std::optional<std::int64_t> LayerRecord::*,
                                std::string LayerRecord::*, std::optional<double> LayerRecord::*,
                                std::vector<double> LayerRecord::*>;

    std::string_view name;
    std::string_view unit;
    std::string_view meaning;
    std::string_view source;
    Member member;
};

/// Every member of LayerRecord, in the order in which they are written. Writer, reader and documentation walk this
/// list. Activations are those of the step's first micro-batch, before the update.
inline constexpr auto kLayerFields = std::to_array<LayerField>({
    {"step", "", "The step.", "", &LayerRecord::step},
    {"layer", "", "Number of the block, from 0; not there outside the blocks.", "", &LayerRecord::layer},
    {"site", "",
     "Place within the block or network: a sublayer (`attention`, `ffn`), `block` for the whole block, a norm "
     "(`ffn.pre_norm`), or a parameter by its name.",
     "", &LayerRecord::site},
    {"stream_rms", "", "Root mean square of the residual stream behind the site.", "", &LayerRecord::stream_rms},
    {"stream_mean", "", "Its mean.", "", &LayerRecord::stream_mean},
    {"kurtosis", "", "Its fourth central moment over its squared variance: 3 for a normal distribution.",
     "He et al., 2405.19279", &LayerRecord::kurtosis},
    {"branch_ratio", "", "RMS of what the sublayer adds over the RMS of the stream that it is added to.", "",
     &LayerRecord::branch_ratio},
    {"angular_distance", "pi", "Mean over tokens of the angle between the block's input and output.",
     "Gromov et al., 2403.17887, section 3.1", &LayerRecord::angular_distance},
    {"input_rms", "", "RMS of what the norm is given.", "", &LayerRecord::input_rms},
    {"gain_mean", "", "Mean of the norm's gain.", "", &LayerRecord::gain_mean},
    {"gain_spread", "", "Standard deviation of the norm's gain over its features.", "", &LayerRecord::gain_spread},
    {"max_attention_logit", "nats", "For each head, the largest scaled logit that a query may see; of 4 sequences.",
     "Wortsman et al., 2309.14322, section 3.1", &LayerRecord::max_attention_logit},
    {"attention_entropy", "nats", "For each head, the mean entropy of a query's attention; of 4 sequences.",
     "Zhai et al., 2303.06296", &LayerRecord::attention_entropy},
    {"dead_share", "", "Share of the hidden units whose activation (gated: gate) is above 0 for no token.", "",
     &LayerRecord::dead_share},
    {"gradient_rms", "", "RMS of the parameter's gradient, before clipping.", "", &LayerRecord::gradient_rms},
    {"gradient_norm", "", "Norm of the parameter's gradient, before clipping.", "", &LayerRecord::gradient_norm},
    {"gradient_to_eps", "", "adamw: RMS of the gradient over `optimizer.eps`; updates shrink as it nears 1.",
     "Wortsman et al., 2309.14322, section 3.4", &LayerRecord::gradient_to_eps},
    {"parameter_rms", "", "RMS of the parameter, before the update.", "", &LayerRecord::parameter_rms},
    {"update_ratio", "", "RMS of the update over parameter_rms; not there when there was no update.", "",
     &LayerRecord::update_ratio},
});

/// What LayerRecord has for a module or parameter: {3, "attention.qkv"} for "blocks.3.attention.qkv", {3, "block"} for
/// "blocks.3", and no layer outside the blocks.
struct LayerSite {
    std::optional<std::int64_t> layer;
    std::string_view site;
};
LayerSite layer_site(std::string_view name);

/// The record as one JSON object without a line break, keys as in kLayerFields; what is not set, or empty, is left
/// out. Numbers have the digits of a float; what is not finite is a word, as in metrics.jsonl.
std::string to_json(const LayerRecord& record);

/// Reads what to_json() wrote. Unknown keys are ignored. Throws IoError, saying what is wrong.
LayerRecord layer_record_from_json(std::string_view line);

} // namespace ballast
