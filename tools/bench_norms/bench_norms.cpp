// Prints how fast the norms are, forward and backward, and which share of this machine's memory bandwidth that is.
// tools/bench_peers/bench_norms.py drives it, in turns with PyTorch.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

#include "ballast/base/parallel.h"
#include "ballast/kernels/peak.h"
#include "ballast/kernels/simd.h"
#include "ballast/lab/bench.h"

namespace {

using namespace ballast;

/// One measurement as a JSON object.
std::string json(const NormSpeed& s) {
    char text[320];
    std::snprintf(text, sizeof(text),
                  R"({"kind": "%.*s", "rows": %lld, "width": %lld, "forward_seconds": %.9g, "backward_seconds": %.9g, )"
                  R"("forward_bytes": %.0f, "backward_bytes": %.0f})",
                  static_cast<int>(s.kind.size()), s.kind.data(), static_cast<long long>(s.rows),
                  static_cast<long long>(s.width), s.forward_seconds, s.backward_seconds, s.forward_bytes,
                  s.backward_bytes);
    return text;
}

/// Answers each line of the standard input, "KIND ROWS WIDTH", with a line.
void serve(double seconds) {
    std::string kind;
    for (std::int64_t rows = 0, width = 0; std::cin >> kind >> rows >> width;) {
        std::puts(json(measure_norm(kind, rows, width, seconds)).c_str());
        std::fflush(stdout);
    }
}

int run(int argc, char** argv) {
    CLI::App app("Times the norms, forward and backward, by width, on data beyond the caches and inside them.\n"
                 "Example: bench_norms --kinds layernorm rmsnorm --widths 128 768 --threads 2");
    const auto known = norm_kinds();
    std::vector<std::string> kinds(known.begin(), known.end());
    std::vector<std::int64_t> widths{32, 64, 128, 256, 512, 768, 1024, 4096};
    std::vector<double> sizes{64, 1};
    double seconds = 0.1;
    int thread_count = available_processors();
    bool as_json = false, worker = false;
    app.add_option("--kinds", kinds, "Which norms")->check(CLI::IsMember(kinds));
    app.add_option("--widths", widths, "Features a row")->check(CLI::Range(1, 1 << 20))->capture_default_str();
    app.add_option("--sizes", sizes, "MiB of x")->check(CLI::Range(0.001, 4096.0))->capture_default_str();
    app.add_option("--seconds", seconds, "Time for each measurement")
        ->check(CLI::Range(0.0, 60.0))
        ->capture_default_str();
    app.add_option("--threads", thread_count, "Worker threads")->check(CLI::Range(1, 1024))->capture_default_str();
    app.add_flag("--json", as_json, "Print one JSON object");
    app.add_flag("--worker", worker, "Measure what each line of input says: KIND ROWS WIDTH");
    CLI11_PARSE(app, argc, argv);

    set_threads(thread_count);
    if (worker) {
        serve(seconds);
        return 0;
    }
    const double bandwidth = measure_bandwidth();
    if (as_json)
        std::printf("{\"bandwidth\": %.6g, \"threads\": %d, \"simd\": \"%s\", \"norms\": [", bandwidth, threads(),
                    simd_name().c_str());
    else
        std::printf("%.1f GB/s with y = a x + z (%d threads, %s)\n\n"
                    "kind         width    MiB   forward            backward\n",
                    1e-9 * bandwidth, threads(), simd_name().c_str());
    const char* separator = "";
    for (const double size : sizes)
        for (const std::string& kind : kinds)
            for (const std::int64_t width : widths) {
                const auto elements = static_cast<std::int64_t>(size * (1 << 20) / sizeof(float));
                const NormSpeed s = measure_norm(kind, std::max<std::int64_t>(elements / width, 1), width, seconds);
                const double forward = s.forward_bytes / s.forward_seconds;
                const double backward = s.backward_bytes / s.backward_seconds;
                if (as_json)
                    std::printf("%s\n%s", separator, json(s).c_str());
                else
                    std::printf("%-12s %5lld %6g  %6.1f GB/s %4.0f %%  %6.1f GB/s %4.0f %%\n", kind.c_str(),
                                static_cast<long long>(width), size, 1e-9 * forward, 100 * forward / bandwidth,
                                1e-9 * backward, 100 * backward / bandwidth);
                std::fflush(stdout);
                separator = ",";
            }
    if (as_json) std::puts("]}");
    return 0;
}

} // namespace

int main(int argc, char** argv) {
    try {
        return run(argc, argv);
    } catch (const std::exception& e) {
        std::cerr << "bench_norms: " << e.what() << '\n';
        return 1;
    }
}
