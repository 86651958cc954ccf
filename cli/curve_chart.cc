#include "cli/curve_chart.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace pompc {
namespace {

// Pixels.
constexpr int kLeft = 58, kRight = 18, kTop = 34, kBottom = 44;  // Around the plot of a panel.
constexpr int kPlotHeight = 290, kLegendRow = 18, kLegendSample = 28, kGap = 14, kFoot = 26;
constexpr int kWidthAlone = 720, kWidthOfMany = 500;
constexpr double kCharacter = 6.4;  // Mean width of a character of the legend; a guess.

constexpr double kPublishedReach = 4;  // Times as far as the runs.
constexpr int kTicks = 6;              // About so many on an axis.

// Told apart with any colour vision (Okabe and Ito); more variants repeat them with a dash.
constexpr const char* kColours[] = {"#0072b2", "#d55e00", "#009e73",
                                    "#cc79a7", "#e69f00", "#56b4e9"};
constexpr const char* kPublishedColours[] = {"#222222", "#8a8a8a", "#b08d57"};

std::string Escaped(absl::string_view text) {
  return absl::StrReplaceAll(text,
                             {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}});
}

std::string Pixels(double value) { return absl::StrFormat("%.2f", value); }

// 1, 2 or 5 times a power of ten, of which about kTicks fit.
double TickStep(double range) {
  const double rough = range / kTicks;
  const double power = std::pow(10, std::floor(std::log10(rough)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= rough) return factor * power;
  }
  return 10 * power;
}

// 250000 -> "250k", 1500000 -> "1.5M".
std::string StepsLabel(double steps) {
  if (steps >= 1e6) return absl::StrFormat("%gM", steps / 1e6);
  if (steps >= 1e3) return absl::StrFormat("%gk", steps / 1e3);
  return absl::StrFormat("%g", steps);
}

struct Line {
  std::string name;  // Of the variant or algorithm.
  std::string label;
  std::string colour, dash;
  std::vector<BandPoint> points;
  bool published = false;
};

struct Panel {
  std::string task;
  std::vector<Line> lines;  // Published ones first: they are drawn behind.
};

// "(3 seeds, 1 to the end)".
std::string SeedsLabel(const std::vector<const RunCurve*>& runs) {
  std::set<uint64_t> seeds;
  double end = 0, spacing = 0;
  for (const RunCurve* run : runs) {
    seeds.insert(run->seed);
    const double first = run->points.front().first, last = run->points.back().first;
    end = std::max(end, last);
    if (run->points.size() > 1) {
      spacing = std::max(spacing, (last - first) / static_cast<double>(run->points.size() - 1));
    }
  }
  const auto complete = std::count_if(runs.begin(), runs.end(), [&](const RunCurve* run) {
    return run->points.back().first >= end - spacing / 2;
  });
  const size_t count = runs.size();
  return absl::StrCat(
      "(", count, seeds.size() < count ? " run" : " seed", count > 1 ? "s" : "",
      static_cast<size_t>(complete) < count ? absl::StrCat(", ", complete, " to the end") : "",
      ")");
}

// Writes one panel at a time.
class PanelWriter {
 public:
  PanelWriter(const Panel& panel, double left, double top, double width)
      : panel_(panel), x0_(left + kLeft), y0_(top + kTop), width_(width - kLeft - kRight) {
    double low = 0, high = 0, end = 0;
    for (const Line& line : panel.lines) {
      for (const BandPoint& point : line.points) {
        // Published bounds are cut where they leave the plot: some are below 0, which no return is.
        low = std::min(low, line.published ? point.mean : point.low);
        high = std::max(high, line.published ? point.mean : point.high);
        end = std::max(end, point.env_steps);
      }
    }
    x_end_ = end > 0 ? end : 1;
    y_step_ = TickStep(high > low ? high - low : 1);
    y_low_ = std::floor(low / y_step_) * y_step_;
    y_high_ = y_low_ + std::max(1.0, std::ceil((high - y_low_) / y_step_)) * y_step_;
  }

  // Height of the legend below the plot.
  static int LegendHeight(const Panel& panel, double width) {
    return LegendRows(panel, width) * kLegendRow;
  }

  std::string Write() {
    Axes();
    for (const Line& line : panel_.lines) Band(line);
    for (const Line& line : panel_.lines) Mean(line);
    Legend();
    return std::move(svg_);
  }

 private:
  double X(double env_steps) const { return x0_ + width_ * env_steps / x_end_; }
  double Y(double value) const {
    return y0_ +
           kPlotHeight * (1 - (std::clamp(value, y_low_, y_high_) - y_low_) / (y_high_ - y_low_));
  }

  void Text(double x, double y, absl::string_view text, absl::string_view attributes) {
    absl::StrAppend(&svg_, "<text x=\"", Pixels(x), "\" y=\"", Pixels(y), "\" ", attributes, ">",
                    Escaped(text), "</text>\n");
  }
  void Rule(double x1, double y1, double x2, double y2, absl::string_view colour) {
    absl::StrAppend(&svg_, "<line x1=\"", Pixels(x1), "\" y1=\"", Pixels(y1), "\" x2=\"",
                    Pixels(x2), "\" y2=\"", Pixels(y2), "\" stroke=\"", colour, "\"/>\n");
  }

  void Axes() {
    const double bottom = y0_ + kPlotHeight, right = x0_ + width_;
    Text(x0_ + width_ / 2, y0_ - 12, panel_.task,
         "class=\"title\" text-anchor=\"middle\" font-size=\"15\" font-weight=\"bold\"");
    const double x_step = TickStep(x_end_);
    for (int i = 0; i * x_step <= x_end_ * (1 + 1e-9); ++i) {
      Rule(X(i * x_step), y0_, X(i * x_step), bottom, "#e4e4e4");
      Text(X(i * x_step), bottom + 17, StepsLabel(i * x_step),
           "class=\"xtick\" text-anchor=\"middle\"");
    }
    const int rows = static_cast<int>(std::lround((y_high_ - y_low_) / y_step_));
    for (int i = 0; i <= rows; ++i) {
      const double value = y_low_ + i * y_step_;
      Rule(x0_, Y(value), right, Y(value), "#e4e4e4");
      Text(x0_ - 7, Y(value) + 4, absl::StrFormat("%g", value),
           "class=\"ytick\" text-anchor=\"end\"");
    }
    Rule(x0_, bottom, right, bottom, "#555555");
    Rule(x0_, y0_, x0_, bottom, "#555555");
    Text(x0_ + width_ / 2, bottom + 35, "environment steps", "text-anchor=\"middle\"");
    const double x = x0_ - kLeft + 14, y = y0_ + kPlotHeight / 2.0;
    Text(x, y, "evaluation return",
         absl::StrCat("text-anchor=\"middle\" transform=\"rotate(-90 ", Pixels(x), " ", Pixels(y),
                      ")\""));
  }

  std::string Names(const Line& line, absl::string_view kind) const {
    return absl::StrCat("class=\"", line.published ? "published " : "", kind, "\" data-task=\"",
                        Escaped(panel_.task), "\" data-name=\"", Escaped(line.name), "\"");
  }
  std::string Point(double env_steps, double value) const {
    return absl::StrCat(Pixels(X(env_steps)), ",", Pixels(Y(value)));
  }
  static std::string Stroke(const Line& line) {
    std::string stroke = absl::StrCat("stroke=\"", line.colour, "\" stroke-width=\"",
                                      line.published ? "1.3" : "2", "\"");
    if (!line.dash.empty()) absl::StrAppend(&stroke, " stroke-dasharray=\"", line.dash, "\"");
    return stroke;
  }

  void Band(const Line& line) {
    if (std::all_of(line.points.begin(), line.points.end(),
                    [](const BandPoint& p) { return p.low == p.high; })) {
      return;  // Of one seed.
    }
    std::vector<std::string> corners;
    for (const BandPoint& p : line.points) corners.push_back(Point(p.env_steps, p.high));
    for (auto p = line.points.rbegin(); p != line.points.rend(); ++p) {
      corners.push_back(Point(p->env_steps, p->low));
    }
    absl::StrAppend(&svg_, "<polygon ", Names(line, "band"), " fill=\"", line.colour,
                    "\" fill-opacity=\"0.15\" points=\"", absl::StrJoin(corners, " "), "\"/>\n");
  }

  void Mean(const Line& line) {
    std::vector<std::string> points;
    for (const BandPoint& p : line.points) points.push_back(Point(p.env_steps, p.mean));
    absl::StrAppend(&svg_, "<polyline ", Names(line, "mean"),
                    " fill=\"none\" stroke-linejoin=\"round\" ", Stroke(line), " points=\"",
                    absl::StrJoin(points, " "), "\"/>\n");
    // A published line is known at few points, and a line of one point would not be seen.
    if (!line.published && line.points.size() > 1) return;
    for (const BandPoint& p : line.points) {
      absl::StrAppend(&svg_, "<circle cx=\"", Pixels(X(p.env_steps)), "\" cy=\"", Pixels(Y(p.mean)),
                      "\" r=\"3\" fill=\"", line.colour, "\"/>\n");
    }
  }

  static int LegendColumns(const Panel& panel, double width) {
    size_t longest = 0;
    for (const Line& line : panel.lines) longest = std::max(longest, line.label.size());
    const double entry = kLegendSample + 12 + kCharacter * static_cast<double>(longest);
    return 2 * entry <= width - kLeft - kRight ? 2 : 1;
  }
  static int LegendRows(const Panel& panel, double width) {
    const int columns = LegendColumns(panel, width);
    return (static_cast<int>(panel.lines.size()) + columns - 1) / columns;
  }

  void Legend() {
    const double width = width_ + kLeft + kRight;
    const int columns = LegendColumns(panel_, width), rows = LegendRows(panel_, width);
    // Runs first, as people read.
    std::vector<const Line*> lines;
    for (const bool published : {false, true}) {
      for (const Line& line : panel_.lines) {
        if (line.published == published) lines.push_back(&line);
      }
    }
    for (size_t i = 0; i < lines.size(); ++i) {
      const int column = static_cast<int>(i) / rows, row = static_cast<int>(i) % rows;
      const double x = x0_ + column * width_ / columns;
      const double y = y0_ + kPlotHeight + kBottom + kLegendRow * (row + 0.5);
      absl::StrAppend(&svg_, "<line x1=\"", Pixels(x), "\" y1=\"", Pixels(y), "\" x2=\"",
                      Pixels(x + kLegendSample), "\" y2=\"", Pixels(y), "\" ", Stroke(*lines[i]),
                      "/>\n");
      Text(x + kLegendSample + 8, y + 4, lines[i]->label, "class=\"legend\"");
    }
  }

  const Panel& panel_;
  const double x0_, y0_, width_;  // The plot's left top corner and width.
  double x_end_ = 1, y_low_ = 0, y_high_ = 1, y_step_ = 1;
  std::string svg_;
};

// Published lines of a task, for runs that go on to `end`.
std::vector<Line> PublishedLines(const std::vector<PublishedCurve>& published,
                                 const std::string& task, double end,
                                 std::vector<std::string>* notes) {
  std::vector<Line> lines;
  double first_after = 0;
  size_t colour = 0;
  for (const PublishedCurve& curve : published) {
    if (curve.task != task) continue;
    const char* const of_curve = kPublishedColours[colour++ % std::size(kPublishedColours)];
    auto stop = std::find_if(curve.points.begin(), curve.points.end(),
                             [end](const BandPoint& p) { return p.env_steps >= end; });
    if (stop != curve.points.end()) ++stop;
    if ((stop - 1)->env_steps > kPublishedReach * end) {
      first_after = (stop - 1)->env_steps;
      continue;
    }
    lines.push_back({.name = curve.algorithm,
                     .label = absl::StrCat(curve.algorithm, ", published"),
                     .colour = of_curve,
                     .dash = "5 4",
                     .points = {curve.points.begin(), stop},
                     .published = true});
  }
  if (colour == 0) {
    notes->push_back(absl::StrCat(task, ": no published curve"));
  } else if (lines.empty()) {
    notes->push_back(absl::StrCat(task, ": published curves are left out, their first point is at ",
                                  StepsLabel(first_after), " steps"));
  }
  return lines;
}

template <typename T>
size_t PlaceOf(std::vector<T>& all, const T& one) {
  const auto found = std::find(all.begin(), all.end(), one);
  if (found != all.end()) return found - all.begin();
  all.push_back(one);
  return all.size() - 1;
}

}  // namespace

CurveChart DrawCurves(const std::vector<RunCurve>& runs,
                      const std::vector<PublishedCurve>& published) {
  CurveChart chart;
  std::vector<std::string> tasks, variants;  // As they come.
  std::map<std::pair<size_t, size_t>, std::vector<const RunCurve*>> groups;
  for (const RunCurve& run : runs) {
    const size_t task = PlaceOf(tasks, run.task), variant = PlaceOf(variants, run.variant);
    groups[{task, variant}].push_back(&run);
  }
  std::vector<Panel> panels;
  for (size_t task = 0; task < tasks.size(); ++task) {
    Panel panel{.task = tasks[task]};
    double end = 0;
    for (size_t variant = 0; variant < variants.size(); ++variant) {
      const auto group = groups.find({task, variant});
      if (group == groups.end()) continue;
      for (const RunCurve* run : group->second) end = std::max(end, run->points.back().first);
      // The same colour in every panel.
      panel.lines.push_back(
          {.name = variants[variant],
           .label = absl::StrCat(variants[variant], " ", SeedsLabel(group->second)),
           .colour = kColours[variant % std::size(kColours)],
           .dash = variant < std::size(kColours) ? "" : "7 3",
           .points = OverSeeds(group->second)});
    }
    std::vector<Line> behind = PublishedLines(published, panel.task, end, &chart.notes);
    panel.lines.insert(panel.lines.begin(), behind.begin(), behind.end());
    panels.push_back(std::move(panel));
  }

  const size_t columns = panels.size() > 4 ? 3 : std::min<size_t>(panels.size(), 2);
  const double width = columns == 1 ? kWidthAlone : kWidthOfMany;
  std::string body;
  double top = 0;
  for (size_t first = 0; first < panels.size(); first += columns) {
    const auto row = absl::MakeSpan(panels).subspan(first, columns);
    int legend = 0;
    for (size_t i = 0; i < row.size(); ++i) {
      absl::StrAppend(&body,
                      PanelWriter(row[i], static_cast<double>(i) * width, top, width).Write());
      legend = std::max(legend, PanelWriter::LegendHeight(row[i], width));
    }
    top += kTop + kPlotHeight + kBottom + legend + kGap;
  }
  const double all = static_cast<double>(columns) * width, height = top + kFoot - kGap;
  chart.svg = absl::StrFormat(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" "
      "viewBox=\"0 0 %.0f %.0f\" role=\"img\" font-family=\"sans-serif\" font-size=\"12\" "
      "fill=\"#222222\">\n<title>%s</title>\n<rect width=\"100%%\" height=\"100%%\" "
      "fill=\"#ffffff\"/>\n%s",
      all, height, all, height,
      Escaped(absl::StrCat("Learning curves: ", absl::StrJoin(tasks, ", "))), body);
  absl::StrAppendFormat(
      &chart.svg,
      "<text x=\"%d\" y=\"%.2f\" font-size=\"10.5\" fill=\"#666666\">Lines: mean over seeds; "
      "bands: least to greatest seed; published by BMPC's authors: confidence bounds.</text>\n"
      "</svg>\n",
      kLeft, height - 9);
  return chart;
}

}  // namespace pompc
