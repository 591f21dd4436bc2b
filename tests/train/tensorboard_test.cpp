// What tests/interop reads with TensorBoard itself is looked at byte by byte here.

#include "ballast/train/tensorboard.h"

#include <cstring>

#include "catch.h"
#include "temporary_directory.h"

using namespace ballast;

namespace {

/// The payloads of a file, each checked.
std::vector<std::string> payloads(std::string_view bytes) {
    std::vector<std::string> result;
    while (!bytes.empty()) {
        REQUIRE(bytes.size() >= 16);
        std::uint64_t size = 0;
        std::memcpy(&size, bytes.data(), sizeof size);
        REQUIRE(bytes.size() >= size + 16);
        result.emplace_back(bytes.substr(12, size));
        CHECK(bytes.substr(0, size + 16) == tfrecord(result.back()));
        bytes.remove_prefix(size + 16);
    }
    return result;
}

} // namespace

TEST_CASE("crc32c has the values of RFC 3720", "[tensorboard]") {
    std::string ascending;
    for (int i = 0; i < 32; ++i)
        ascending += static_cast<char>(i);
    CHECK(crc32c(std::string(32, '\0')) == 0x8A9136AA);
    CHECK(crc32c(std::string(32, '\xFF')) == 0x62A8AB43);
    CHECK(crc32c(ascending) == 0x46DD794E);
    CHECK(crc32c("123456789") == 0xE3069283);
    CHECK(crc32c("") == 0);
}

TEST_CASE("an event file begins with its version, and each process has its own", "[tensorboard]") {
    const TemporaryDirectory directory;
    {
        TensorBoardSink first(directory.path());
        StepRecord record;
        record.step = 300;
        record.loss = 2.5;
        first.write(record);
        TensorBoardSink second(directory.path(), 300);
    }
    std::vector<std::string> files;
    for (const auto& entry : std::filesystem::directory_iterator(directory.path()))
        files.push_back(entry.path());
    REQUIRE(files.size() == 2);
    std::sort(files.begin(), files.end());
    CHECK(std::filesystem::path(files[0]).filename().string().starts_with("events.out.tfevents."));
    const std::vector<std::string> events = payloads(read_file(files[0]));
    REQUIRE(events.size() == 3);
    CHECK(events[0].find("\x1a\x0d"
                         "brain.Event:2") != std::string::npos);
    CHECK(events[2].find(std::string("\x10\xac\x02", 3)) != std::string::npos); // step 300 as a varint
    CHECK(events[2].find(std::string("\x0a\x04loss\x15\x00\x00\x20\x40", 11)) != std::string::npos);
    CHECK(events[2].find("val_loss") == std::string::npos); // was not set
    CHECK(payloads(read_file(files[1])).size() == 2);
}
