#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "ballast/base/file.h"
#include "ballast/train/metrics.h"

namespace ballast {

/// CRC-32C (Castagnoli; RFC 3720, appendix B.4) of `bytes`.
std::uint32_t crc32c(std::string_view bytes);

/// A record of a TFRecord file, as event files are: length and payload, each with its masked checksum
/// (tensorboard/summary/writer/record_writer.py).
std::string tfrecord(std::string_view payload);

/// An event file for TensorBoard: every number of a StepRecord as a scalar under its name in metrics.jsonl. A run that
/// goes on begins a file of its own, which tells TensorBoard to drop what older ones have of its steps and later ones.
class TensorBoardSink final : public MetricsSink {
public:
    /// Makes events.out.tfevents.TIME.HOST.PID.N in `directory`. The next record is of a step after `last_step`.
    explicit TensorBoardSink(const std::filesystem::path& directory, std::int64_t last_step = 0,
                             const FileCalls& calls = kSystemCalls);
    void write(const StepRecord& record) override;
    void sync() override { file_.sync(); }

private:
    AppendFile file_;
};

} // namespace ballast
