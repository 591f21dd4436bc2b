#include "ballast/lab/explain.h"

#include <algorithm>
#include <map>

#include "ballast/config/norm_layout.h"
#include "ballast/nn/transformer.h"
#include "explain_text.h"

namespace ballast {

namespace {

std::string init_text(const ParamInit& init) {
    std::string text;
    switch (init.kind) {
    case ParamInit::Kind::normal: text = "normal "; break;
    case ParamInit::Kind::uniform: text = "uniform ±"; break;
    case ParamInit::Kind::constant: break;
    }
    text += rounded_number(init.value);
    // The values of a packed query, key and value matrix are the one such part.
    return init.tail < 0 ? text : text + ", values × " + rounded_number(init.tail_scale);
}

/// "blocks.*.ffn.input.weight" for "blocks.3.ffn.input.weight".
std::string folded_name(const std::string& name) {
    constexpr std::string_view kBlocks = "blocks.";
    if (!name.starts_with(kBlocks)) return name;
    const std::size_t end = name.find('.', kBlocks.size());
    return std::string(kBlocks) + "*" + name.substr(std::min(end, name.size()));
}

std::vector<ParamRow> rows_of(std::span<const Param> params) {
    std::vector<ParamRow> rows;
    std::map<std::string, std::size_t> row_of;
    for (const Param& param : params) {
        const ParamRow row{folded_name(param.name), param.shape,           1,
                           param.shape.elements(),  init_text(param.init), param.group == DecayGroup::decay};
        // Blocks that differ do not share a row.
        const std::string key = row.name + param.shape.text() + row.init + (row.decays ? "+" : "-");
        const auto [known, fresh] = row_of.emplace(key, rows.size());
        if (fresh) {
            rows.push_back(row);
        } else {
            ++rows[known->second].repeats;
            rows[known->second].count += row.count;
        }
    }
    return rows;
}

/// Adds up the norms of a network: how many, and the reals of a token that they move.
class Traffic {
public:
    void add(const NormSpec& norm, std::int64_t width) {
        if (!norm) return;
        const int passes = norm.kind == NormKind::batchnorm ? 8 : 5;
        ++norms_;
        reals_ += static_cast<double>(passes * width);
    }
    std::int64_t norms() const { return norms_; }
    double reals() const { return reals_; }

private:
    std::int64_t norms_ = 0;
    double reals_ = 0;
};

NormCost norm_cost_of(const Config& config, const Explanation& what) {
    const ModelConfig& model = config.model;
    const NormLayout layout = norm_layout(model);
    const std::int64_t kv_width = model.kv_heads * (model.width / model.heads);
    Traffic traffic;
    traffic.add(layout.embedding, model.width);
    for (const BlockNorms& block : layout.blocks) {
        for (const SublayerNorms* norms : {&block.attention, &block.ffn})
            for (const NormSpec* norm : {&norms->pre, &norms->out, &norms->post})
                traffic.add(*norm, model.width);
        traffic.add(layout.qk, model.width);
        traffic.add(layout.qk, kv_width);
        traffic.add(layout.v, kv_width);
        traffic.add(layout.inner, model.ffn.width);
    }
    traffic.add(layout.final, model.width);

    const auto tokens = static_cast<double>(config.train.batch * model.context);
    double matrix_elements = 0;
    NormCost cost;
    for (const ParamRow& row : what.parameters) {
        if (row.name.find("_norm.") != std::string::npos) cost.parameters += row.count;
        if (row.shape.rank == 2 && !row.name.starts_with("embedding."))
            matrix_elements += static_cast<double>(row.count);
        if (row.name == "embedding.tokens" && model.tie_embeddings) matrix_elements += static_cast<double>(row.count);
    }
    cost.norms = traffic.norms();
    cost.bytes_per_step = sizeof(float) * traffic.reals() * tokens;
    const double attention = 12.0 * static_cast<double>(model.layers * model.width * model.context);
    cost.model_flops_per_step = tokens * (6 * matrix_elements + attention);
    return cost;
}

} // namespace

Explanation explain(const Config& config, std::int64_t vocabulary) {
    ParamTable table;
    const Transformer model(table, config.model, vocabulary);

    Explanation out;
    out.equations = equations_of(config.model);
    out.parameters = rows_of(table.params());
    out.buffers = rows_of(table.buffers());
    for (const ParamTie& tie : table.ties())
        out.ties.push_back({tie.name, table.params()[tie.param].name});
    out.parameter_count = table.count();
    for (const ParamRow& row : out.parameters)
        if (row.decays) out.decayed_count += row.count;
    out.norm_cost = norm_cost_of(config, out);
    out.warnings = norm_warnings(config);
    return out;
}

} // namespace ballast
