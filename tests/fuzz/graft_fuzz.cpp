// graft.json: what a run that began from another one knows of it.

#include <cstddef>
#include <cstdint>

#include "ballast/base/error.h"
#include "ballast/lab/diagnose.h"
#include "ballast/train/graft_record.h"
#include "fuzz/target.h"

using namespace ballast;

namespace {

/// Record files that need no disk: the fuzzer writes thousands a second.
class QuickCalls final : public FileCalls {
public:
    int fsync(int /*descriptor*/) const override { return 0; }
};
const QuickCalls kQuickCalls;

void use(const GraftRecord& record) {
    const std::string text = to_json(record);
    require(text.find('\n') == std::string::npos, "a record is one line");
    require(record.count("new") >= 0 && record.count("new") <= static_cast<std::int64_t>(record.tensors.size()),
            "no more tensors are new than there are");
    graft_event(record);

    RunRecord run;
    run.events = {{.step = 1, .kind = "loss_spike", .message = "a spike"}};
    run.graft = record;
    for (const Diagnosis& cause : diagnose(run))
        for (const std::string& line : cause.evidence)
            require_message(line);

    write_graft_record(scratch().path(), record, kQuickCalls);
    require(to_json(read_graft_record(scratch().path()).value()) == text, "a record comes back");
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    write_text(graft_record_path(scratch().path()), {reinterpret_cast<const char*>(data), size});
    try {
        use(read_graft_record(scratch().path()).value());
    } catch (const IoError& error) {
        require_message(error.what());
    }
    return 0;
}
