#include <algorithm>
#include <array>
#include <cstdio>
#include <iostream>
#include <map>
#include <memory>

#include "ballast/base/file.h"
#include "ballast/lab/bench.h"
#include "bench.h"
#include "bench_model.h"
#include "format.h"
#include "json.h"
#include "norm_chart.h"
#include "table.h"

using namespace ballast;

namespace {

struct NormOptions : BenchOptions {
    std::vector<std::string> kinds;
    std::vector<std::int64_t> widths{32, 64, 128, 256, 512, 768, 1024, 4096};
    std::vector<double> sizes{64, 1};
    std::int64_t widest_step = 1024;
    std::string svg;
    bool worker = false;

    NormOptions() {
        seconds = 0.1;
        for (const std::string_view kind : norm_kinds())
            kinds.emplace_back(kind);
    }
};

// ---- The kernels ----------------------------------------------------------------------------------------------------

std::string json_of(const NormSpeed& speed) {
    const double bytes = speed.forward_bytes + speed.backward_bytes;
    return json::object({{"name", json::text(std::string(speed.kind) + " " + std::to_string(speed.rows) + "x" +
                                             std::to_string(speed.width))},
                         {"kind", json::text(speed.kind)},
                         {"rows", json::number(speed.rows)},
                         {"width", json::number(speed.width)},
                         {"forward_seconds", json::number(speed.forward_seconds)},
                         {"backward_seconds", json::number(speed.backward_seconds)},
                         {"forward_bytes", json::number(speed.forward_bytes)},
                         {"backward_bytes", json::number(speed.backward_bytes)},
                         {"bytes_per_second", json::number(bytes / (speed.forward_seconds + speed.backward_seconds))}});
}

std::int64_t rows_of(double mebibytes, std::int64_t width) {
    const double elements = mebibytes * (1 << 20) / sizeof(float);
    return std::max<std::int64_t>(static_cast<std::int64_t>(elements) / width, 1);
}

std::string measure_kernels(const NormOptions& options, const BenchReport& report) {
    std::vector<std::string> items;
    for (const double size : options.sizes) {
        std::vector<std::vector<std::string>> rows = {
            {format("%g MiB", size), "width", "forward", "of memory's", "backward", "of memory's"}};
        for (const std::string& kind : options.kinds)
            for (const std::int64_t width : options.widths) {
                const NormSpeed speed = measure_norm(kind, rows_of(size, width), width, options.seconds);
                const double forward = speed.forward_bytes / speed.forward_seconds;
                const double backward = speed.backward_bytes / speed.backward_seconds;
                rows.push_back({kind, std::to_string(width), format("%.1f GB/s", 1e-9 * forward),
                                format("%.0f %%", 100 * forward / report.bandwidth()),
                                format("%.1f GB/s", 1e-9 * backward),
                                format("%.0f %%", 100 * backward / report.bandwidth())});
                items.push_back(json_of(speed));
            }
        if (!report.prints()) continue;
        std::printf("\n");
        print_table(rows, {false, true, true, true, true, true});
        std::fflush(stdout);
    }
    return json::array(items);
}

// ---- Their share of a step ------------------------------------------------------------------------------------------

/// The step of P1 with two layers of this width and norms of this kind.
NormShare measure_share(const std::string& kind, std::int64_t width, double seconds) {
    const std::array overrides = {std::string("model.layers=2"), "model.width=" + std::to_string(width),
                                  kind == "none" ? "model.norm.placement=none" : "model.norm.kind=" + kind};
    BenchModel model(load_bench_config(std::string(kBenchConfigs.front().name), overrides), 0);
    model.warm_up();
    const StepSpeed step = measure_steps(model.learner(), model.step, seconds);
    NormShare share{kind, width, step.typical_seconds, 0};
    for (const CallSpeed& call : step.calls)
        if (call.op->name == kind) share.norm_seconds += call.forward_seconds + call.backward_seconds;
    return share;
}

std::string json_of(const NormShare& share) {
    return json::object({{"name", json::text("step " + share.kind + " " + std::to_string(share.width))},
                         {"kind", json::text(share.kind)},
                         {"width", json::number(share.width)},
                         {"step_seconds", json::number(share.step_seconds)},
                         {"norm_seconds", json::number(share.norm_seconds)},
                         {"share", json::number(share.share())}});
}

/// The shares at one width, of the fastest of several rounds in which all kinds take turns: kinds are a tenth of a norm
/// apart, and what other programs take in the seconds of one of them is more.
std::vector<NormShare> measure_shares(const std::vector<std::string>& kinds, std::int64_t width, double seconds) {
    constexpr int kRounds = 3;
    std::vector<NormShare> shares;
    for (int round = 0; round < kRounds; ++round)
        for (std::size_t i = 0; i < kinds.size(); ++i) {
            const NormShare share = measure_share(kinds[i], width, seconds / kRounds);
            if (round == 0) {
                shares.push_back(share);
                continue;
            }
            shares[i].step_seconds = std::min(shares[i].step_seconds, share.step_seconds);
            shares[i].norm_seconds = std::min(shares[i].norm_seconds, share.norm_seconds);
        }
    return shares;
}

std::vector<NormShare> measure_shares(const NormOptions& options) {
    // A step is some hundred times a kernel.
    constexpr double kTimes = 5;
    std::vector<std::string> kinds = options.kinds;
    kinds.emplace_back("none");
    std::vector<NormShare> shares;
    for (const std::int64_t width : options.widths) {
        if (width > options.widest_step) continue;
        const std::vector<NormShare> of_width = measure_shares(kinds, width, kTimes * options.seconds);
        shares.insert(shares.end(), of_width.begin(), of_width.end());
    }
    return shares;
}

void print_shares(const std::vector<NormShare>& shares) {
    std::printf("\nstep: P1 with two layers of each width; `norms`: forward and backward of all five\n");
    std::map<std::int64_t, double> without;
    for (const NormShare& share : shares)
        if (share.kind == "none") without[share.width] = share.step_seconds;
    std::vector<std::vector<std::string>> rows = {
        {"width", "norm", "step", "norms", "share", "step without", "longer"}};
    for (const NormShare& share : shares) {
        if (share.kind == "none") continue;
        const double bare = without[share.width];
        rows.push_back({std::to_string(share.width), share.kind, short_time(share.step_seconds),
                        short_time(share.norm_seconds), percent(share.share()), short_time(bare),
                        percent(share.step_seconds / bare - 1)});
    }
    print_table(rows, {true, false, true, true, true, true, true});
    std::printf("\n%s", text_chart(shares).c_str());
}

int bench_norms(const NormOptions& options) {
    const BenchReport report("norms", options);
    const std::string kernels = measure_kernels(options, report);
    const std::vector<NormShare> shares = measure_shares(options);
    if (report.prints() && !shares.empty()) print_shares(shares);
    if (!options.svg.empty()) write_file_atomic(options.svg, svg_chart(shares));
    std::vector<std::string> items;
    for (const NormShare& share : shares)
        items.push_back(json_of(share));
    return report.finish({{"kernels", kernels}, {"shares", json::array(items)}});
}

/// For tools/bench_peers: answers each line of the standard input, "KIND ROWS WIDTH", with a line.
int serve(const NormOptions& options) {
    use_threads(options.threads);
    std::string kind;
    for (std::int64_t rows = 0, width = 0; std::cin >> kind >> rows >> width;) {
        std::puts(json_of(measure_norm(kind, rows, width, options.seconds)).c_str());
        std::fflush(stdout);
    }
    return kDone;
}

} // namespace

void add_bench_norms(CLI::App& bench, Action& action) {
    auto options = std::make_shared<NormOptions>();
    CLI::App* command = bench.add_subcommand("norms", "Speed of the norms by width, and their share of a step");
    constexpr std::int64_t kWidest = 1 << 20;
    constexpr double kLeastSize = 0.001, kMostSize = 4096;
    command->add_option("--kinds", options->kinds, "Which norms [all]")
        ->type_name("KIND")
        ->check(CLI::IsMember(options->kinds));
    command->add_option("--widths", options->widths, "Features a row [32 to 4096]")
        ->type_name("N")
        ->check(CLI::Range(std::int64_t{1}, kWidest));
    command->add_option("--sizes", options->sizes, "MiB of the kernels' input: beyond the caches, and inside [64 1]")
        ->type_name("MIB")
        ->check(CLI::Range(kLeastSize, kMostSize));
    command->add_option("--widest-step", options->widest_step, "Widest model whose step is timed; 0: none")
        ->type_name("N")
        ->check(CLI::Range(std::int64_t{0}, kWidest))
        ->capture_default_str();
    command->add_option("--svg", options->svg, "Write the shares as a chart")->type_name("FILE");
    add_bench_options(*command, *options, "Time for each kernel; a step gets five times as much");
    command->add_flag("--worker", options->worker, "Time what each line of the standard input says")->group("");
    command->footer("Example: ballast bench norms --kinds layernorm rmsnorm --svg norms.svg");
    command->callback([options, &action] {
        action = [options] { return options->worker ? serve(*options) : bench_norms(*options); };
    });
}
