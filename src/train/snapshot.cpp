#include "ballast/train/snapshot.h"

#include <algorithm>
#include <utility>

namespace ballast {

void Snapshot::take(const TrainerState& now, const ParamTable& table, std::span<const Moment> moments) {
    state = now;
    arrays.resize(1 + moments.size());
    arrays[0].assign(table.values(), table.values() + table.state_size());
    for (std::size_t i = 0; i < moments.size(); ++i)
        arrays[1 + i].assign(moments[i].values, moments[i].values + table.size());
}

bool Snapshot::fits(const ParamTable& table, std::span<const Moment> moments) const {
    const auto holds = [](const std::vector<float>& array, std::int64_t size) {
        return array.size() == static_cast<std::size_t>(size);
    };
    return arrays.size() == 1 + moments.size() && holds(arrays[0], table.state_size()) &&
           std::all_of(arrays.begin() + 1, arrays.end(),
                       [&](const std::vector<float>& array) { return holds(array, table.size()); });
}

void Snapshot::restore(ParamTable& table, std::span<const Moment> moments) const {
    std::copy(arrays[0].begin(), arrays[0].end(), table.values());
    for (std::size_t i = 0; i < moments.size(); ++i)
        std::copy(arrays[1 + i].begin(), arrays[1 + i].end(), moments[i].values);
}

void Snapshots::take(const TrainerState& state, const ParamTable& table, std::span<const Moment> moments) {
    if (keep_ == 0) return;
    if (snapshots_.size() < keep_) {
        snapshots_.emplace_back();
    } else {
        Snapshot oldest = std::move(snapshots_.front());
        snapshots_.pop_front();
        snapshots_.push_back(std::move(oldest));
    }
    snapshots_.back().take(state, table, moments);
}

const Snapshot* Snapshots::before(std::int64_t step) const {
    for (auto at = snapshots_.rbegin(); at != snapshots_.rend(); ++at)
        if (at->state.step <= step) return &*at;
    return snapshots_.empty() ? nullptr : &snapshots_.front();
}

void Snapshots::drop_after(std::int64_t step) {
    while (!snapshots_.empty() && snapshots_.back().state.step > step)
        snapshots_.pop_back();
}

} // namespace ballast
