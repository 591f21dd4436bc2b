#include "ballast/base/log.h"

#include <mutex>
#include <spdlog/logger.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/ansicolor_sink.h>
#include <spdlog/sinks/base_sink.h>
#include <utility>

namespace ballast {

namespace {

spdlog::level::level_enum to_spdlog(LogLevel level) {
    switch (level) {
    case LogLevel::warning: return spdlog::level::warn;
    case LogLevel::error: return spdlog::level::err;
    case LogLevel::info: break;
    }
    return spdlog::level::info;
}

LogLevel from_spdlog(spdlog::level::level_enum level) {
    if (level >= spdlog::level::err) return LogLevel::error;
    return level == spdlog::level::warn ? LogLevel::warning : LogLevel::info;
}

/// "warning: " and "error: ", in colour where the sink colours; nothing for info.
class LevelPrefix final : public spdlog::custom_flag_formatter {
public:
    void format(const spdlog::details::log_msg& message, const std::tm& /*time*/, spdlog::memory_buf_t& out) override {
        const LogLevel level = from_spdlog(message.level);
        if (level == LogLevel::info) return;
        const std::string_view text = level == LogLevel::warning ? "warning:" : "error:";
        message.color_range_start = out.size();
        out.append(text.data(), text.data() + text.size());
        message.color_range_end = out.size();
        out.push_back(' ');
    }
    std::unique_ptr<custom_flag_formatter> clone() const override { return std::make_unique<LevelPrefix>(); }
};

class FunctionSink final : public spdlog::sinks::base_sink<std::mutex> {
public:
    explicit FunctionSink(std::function<void(LogLevel, std::string_view)> function) : function_(std::move(function)) {}

private:
    void sink_it_(const spdlog::details::log_msg& message) override {
        function_(from_spdlog(message.level), {message.payload.data(), message.payload.size()});
    }
    void flush_() override {}

    std::function<void(LogLevel, std::string_view)> function_;
};

} // namespace

struct Log::Destination {
    spdlog::logger logger;
};

Log Log::to_stderr(bool color) {
    auto sink = std::make_shared<spdlog::sinks::ansicolor_stderr_sink_mt>(color ? spdlog::color_mode::always
                                                                                : spdlog::color_mode::never);
    auto formatter = std::make_unique<spdlog::pattern_formatter>();
    formatter->add_flag<LevelPrefix>('*').set_pattern("%*%v");
    auto destination = std::make_shared<Destination>(Destination{spdlog::logger("ballast", std::move(sink))});
    destination->logger.set_formatter(std::move(formatter));
    destination->logger.flush_on(spdlog::level::info);
    return Log(std::move(destination));
}

Log Log::to(std::function<void(LogLevel, std::string_view)> sink) {
    return Log(std::make_shared<Destination>(
        Destination{spdlog::logger("ballast", std::make_shared<FunctionSink>(std::move(sink)))}));
}

void Log::write(LogLevel level, std::string_view message) const {
    if (destination_) destination_->logger.log(to_spdlog(level), spdlog::string_view_t(message.data(), message.size()));
}

} // namespace ballast
