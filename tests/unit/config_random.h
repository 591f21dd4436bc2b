#pragma once

#include <cmath>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "ballast/config/config.h"
#include "ballast/config/load.h"

/// Random configs that are valid: every key is drawn from what its rule allows, then the keys that depend on each other
/// are made to fit.
class RandomConfig {
public:
    explicit RandomConfig(std::uint64_t seed) : random_(seed) {}

    ballast::Config next() {
        using namespace ballast;
        Config config;
        fill(config);
        ModelConfig& model = config.model;
        model.kv_heads = 1 + below(8);
        model.heads = model.kv_heads * (1 + below(8));
        model.width = model.heads * 2 * (1 + below(64));
        config.train.micro_batch = 1 + below(100);
        config.train.batch = config.train.micro_batch * (1 + below(100));
        model.layers = 8 + below(100);
        for (std::size_t i = 0; i < model.norm.layers.size(); ++i)
            model.norm.layers[i].until = static_cast<double>(i + 1) / static_cast<double>(model.norm.layers.size());
        if (config.schedule.final_lr > config.optimizer.lr) std::swap(config.schedule.final_lr, config.optimizer.lr);
        config.data.path = "/data/" + config.name + ".txt";
        if (below(4) == 0) {
            config.data.path.clear();
            config.data.task.kind = TaskKind::majority;
            model.context = 3 + below(100);
        } else {
            config.data.task = {};
        }
        config.init_from.checkpoint = std::to_string(below(1000));
        config.init_from.run = below(2) == 0 ? "" : "/runs/" + config.name;
        // What is left are keys that other keys make idle or impossible: they go back to their defaults.
        for (auto problems = validate(config); !problems.empty(); problems = validate(config)) {
            const Config before = config;
            for (const ConfigProblem& problem : problems)
                reset(config, "", problem.path);
            if (config == before) throw Error("cannot mend: " + problems.front().text());
        }
        return config;
    }

    /// 0 .. count - 1.
    std::int64_t below(std::int64_t count) { return static_cast<std::int64_t>(random_() % std::uint64_t(count)); }

private:
    template <class T>
    struct IsList : std::false_type {};
    template <class Item>
    struct IsList<std::vector<Item>> : std::true_type {};

    template <class T>
    void fill(T& section) {
        ballast::for_each_key<T>([&]<class M>(const ballast::Key<T, M>& key) {
            M& member = section.*(key.member);
            if constexpr (ballast::HasKeys<M>) {
                fill(member);
            } else if constexpr (IsList<M>::value) {
                member.resize(static_cast<std::size_t>(below(4)));
                for (auto& item : member)
                    fill(item);
            } else {
                draw(member, key.rule);
            }
        });
    }

    /// Gives the key at `path`, or the list that it is in, its default.
    template <class T>
    static void reset(T& section, const std::string& prefix, const std::string& path) {
        ballast::for_each_key<T>([&]<class M>(const ballast::Key<T, M>& key) {
            const std::string here = prefix + std::string(key.name);
            if constexpr (ballast::HasKeys<M>)
                reset(section.*(key.member), here + ".", path);
            else if (path == here || path.starts_with(here + "["))
                section.*(key.member) = T{}.*(key.member);
        });
    }

    void draw(bool& value, const ballast::Rule&) { value = below(2) == 1; }
    void draw(std::uint64_t& value, const ballast::Rule&) { value = random_() >> below(64); }
    void draw(std::int64_t& value, const ballast::Rule& rule) {
        do
            value = static_cast<std::int64_t>(random_() >> (1 + below(63)));
        while (!rule.contains(static_cast<double>(value)));
    }
    void draw(double& value, const ballast::Rule& rule) {
        do {
            const auto exponent = static_cast<int>(below(80)) - 110;
            value = std::ldexp(static_cast<double>(random_() >> 11), exponent);
        } while (!rule.contains(value));
    }
    void draw(std::array<double, 2>& value, const ballast::Rule& rule) {
        for (double& element : value)
            draw(element, rule);
    }
    void draw(std::string& value, const ballast::Rule&) {
        const std::string characters = "abcXYZ019 _\"\\'{}[],:$#=";
        value = "n";
        for (std::int64_t length = below(20); length > 0; --length)
            value += below(10) == 0 ? "ü" : std::string(1, characters[std::size_t(below(std::ssize(characters)))]);
    }
    template <class E>
        requires ballast::ConfigEnum<E>
    void draw(E& value, const ballast::Rule&) {
        const auto values = values_of(E{});
        value = values[std::size_t(below(std::ssize(values)))].value;
    }
    ballast::Placement any_slots() { return ballast::placement_of({below(2) == 1, true, below(2) == 1}); }
    void draw(ballast::Placement& value, const ballast::Rule& rule) {
        draw<ballast::Placement>(value, rule);
        if (below(4) == 0) value = any_slots();
    }
    void draw(ballast::OwnPlacement& value, const ballast::Rule& rule) {
        draw<ballast::OwnPlacement>(value, rule);
        if (below(4) == 0) value = own_placement(any_slots());
    }

    std::mt19937_64 random_;
};
