#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>

namespace ballast {

enum class LogLevel : std::uint8_t { info, warning, error };

/// Where messages for people go. A small value that is passed to whoever has something to say, never a global; copies
/// share one destination and may be used from several threads. A default Log drops everything, so that the library is
/// silent unless its caller asks.
class Log {
public:
    Log() = default;

    /// Standard error, one line a message: plain text for info, "warning: …" and "error: …" otherwise, the prefix in
    /// colour on request.
    static Log to_stderr(bool color);

    /// Calls `sink` for each message, one call at a time: for a terminal that has to move its live line out of the way
    /// first, and for tests.
    static Log to(std::function<void(LogLevel, std::string_view)> sink);

    void info(std::string_view message) const { write(LogLevel::info, message); }
    void warn(std::string_view message) const { write(LogLevel::warning, message); }
    void error(std::string_view message) const { write(LogLevel::error, message); }

private:
    struct Destination;
    explicit Log(std::shared_ptr<Destination> destination) : destination_(std::move(destination)) {}
    void write(LogLevel level, std::string_view message) const;

    std::shared_ptr<Destination> destination_;
};

} // namespace ballast
