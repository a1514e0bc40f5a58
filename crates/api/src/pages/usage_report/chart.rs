//! One metric's days as bars, in SVG that takes its colours and its font from the page's
//! stylesheet and scales with its card.

use std::ops::Range;

use chrono::NaiveDate;
use cp_model::Metric;
use maud::{Markup, PreEscaped, html};
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

/// Four units are about one CSS pixel in the narrowest column.
const SIZE: (u32, u32) = (1320, 620);
/// Of labels; the SVG backend divides by 1.24.
const FONT_SIZE: f64 = 46.0 * 1.24;
/// At least this share of the chart's height has a bar, so that a little is not nothing.
const LEAST: f64 = 0.008;
/// Up to this many days there are gaps between bars. More of them overlap a little: where bars of
/// less than a pixel only touch, the ground shines through.
const APART: usize = 100;

/// What is drawn in these colours gets a class instead, see [`with_classes`].
const BAR: RGBColor = RGBColor(0, 0, 1);
const CORRECTION: RGBColor = RGBColor(0, 0, 2);
const GRID: RGBColor = RGBColor(0, 0, 3);
const ZERO: RGBColor = RGBColor(0, 0, 4);
const LABEL: RGBColor = RGBColor(0, 0, 5);

/// The chart. `title` is what a screen reader says in its place; `days` are in order, and so many
/// that they fit into a period.
///
/// # Errors
/// What the drawing library refuses, which no values of ours should bring about.
pub fn bars(
    title: &str,
    id: &str,
    metric: Metric,
    days: &[(NaiveDate, i64)],
) -> Result<Markup, String> {
    let svg = draw(metric, days).map_err(|error| error.to_string())?;
    let (_, inner) = svg
        .split_once('>')
        .ok_or("the drawing has no opening tag")?;
    let inner = inner.trim_end().trim_end_matches("</svg>");
    let view = format!("0 0 {} {}", SIZE.0, SIZE.1);
    Ok(html! {
        svg.chart viewBox=(view) role="img" aria-labelledby=(id) {
            title id=(id) { (title) }
            (PreEscaped(with_classes(inner)))
        }
    })
}

fn draw(
    metric: Metric,
    days: &[(NaiveDate, i64)],
) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let scale = Scale::of(metric, days.iter().map(|(_, amount)| *amount));
    let ticks = scale.ticks();
    let (low, high) = (
        ticks.first().copied().unwrap_or(0.0),
        ticks.last().copied().unwrap_or(1.0),
    );
    let least = (high - low) * LEAST;
    let gap = if days.len() <= APART { 0.12 } else { -0.3 };
    let marked = marked_days(days.len());
    // Figures are about as wide as this.
    let characters = ticks.iter().map(|tick| scale.label(*tick).len()).max();
    let room = 27 * u32::try_from(characters.unwrap_or(0))? + 30;
    let width = f64::from(u16::try_from(days.len())?);

    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&root)
            .margin_top(30)
            .margin_right(50)
            .x_label_area_size(90)
            .y_label_area_size(room)
            .build_cartesian_2d(Axis::new(0.0..width, marked), Axis::new(low..high, ticks))?;
        let font = || ("sans-serif", FONT_SIZE).into_font().color(&LABEL);
        chart
            .configure_mesh()
            .disable_x_mesh()
            // Not `disable_axes`, which takes the labels, too; the ticks keep them at a distance.
            .axis_style(TRANSPARENT)
            .set_tick_mark_size(LabelAreaPosition::Left, 8)
            .set_tick_mark_size(LabelAreaPosition::Bottom, 16)
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID.stroke_width(3))
            .x_label_style(font())
            .y_label_style(font())
            .x_label_formatter(&|x| day_label(days, *x))
            .y_label_formatter(&|y| scale.label(*y))
            .draw()?;
        chart.draw_series(
            (0_u16..)
                .zip(days)
                .filter(|(_, (_, amount))| *amount != 0)
                .map(|(index, (_, amount))| {
                    let x = f64::from(index);
                    let value = scale.value(*amount);
                    let drawn = value.abs().max(least).copysign(value);
                    let colour = if *amount < 0 { CORRECTION } else { BAR };
                    let corners = [(x + gap, 0.0), (x + 1.0 - gap, drawn)];
                    Rectangle::new(corners, colour.filled())
                }),
        )?;
        let zero = vec![(0.0, 0.0), (width, 0.0)];
        chart.draw_series([PathElement::new(zero, ZERO.stroke_width(4))])?;
        root.present()?;
    }
    Ok(svg)
}

/// An axis with labels where we want them.
struct Axis {
    coord: RangedCoordf64,
    labels: Vec<f64>,
}

impl Axis {
    fn new(range: Range<f64>, labels: Vec<f64>) -> Self {
        Self {
            coord: range.into(),
            labels,
        }
    }
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        self.coord.map(value, limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        // Light lines would stand between the labels.
        if hint.weight().allow_light_points() {
            Vec::new()
        } else {
            self.labels.clone()
        }
    }

    fn range(&self) -> Range<f64> {
        self.coord.range()
    }
}

/// Attributes that would fix colours and fonts make way for classes. Nothing here comes from
/// people: labels are dates and numbers.
fn with_classes(svg: &str) -> String {
    let mut svg = svg
        .replace(" opacity=\"1\"", "")
        .replace(" font-family=\"sans-serif\"", "")
        .replace("\n<", "<");
    for (attributes, class) in [
        (" fill=\"#000001\" stroke=\"none\"", "bar"),
        (" fill=\"#000002\" stroke=\"none\"", "bar correction"),
        (" stroke=\"#000003\"", "grid"),
        (" stroke=\"#000004\"", "zero"),
        (" fill=\"#000005\"", "label"),
    ] {
        svg = svg.replace(attributes, &format!(" class=\"{class}\""));
    }
    svg
}

/// Where labels of days stand: in the middle of at most five bars, evenly.
fn marked_days(count: usize) -> Vec<f64> {
    let step = count.saturating_sub(1).div_ceil(4).max(1);
    (0..count)
        .step_by(step)
        .filter_map(|index| u16::try_from(index).ok())
        .map(|index| f64::from(index) + 0.5)
        .collect()
}

fn day_label(days: &[(NaiveDate, i64)], x: f64) -> String {
    // Days of more than half a year repeat the same months' names: there the year says more.
    let format = if days.len() > 180 { "%b %Y" } else { "%-d %b" };
    (0_u16..)
        .zip(days)
        .find(|(index, _)| f64::from(*index) + 1.0 > x)
        .map(|(_, (day, _))| day.format(format).to_string())
        .unwrap_or_default()
}

/// The unit in which a chart counts, and how far.
struct Scale {
    per_unit: f64,
    /// With the space before it, if it has one.
    unit: &'static str,
    low: f64,
    high: f64,
    /// A part of one cannot be.
    whole: bool,
}

impl Scale {
    fn of(metric: Metric, amounts: impl Iterator<Item = i64>) -> Self {
        let (low, high) = amounts.fold((0, 0), |(low, high), amount| {
            (amount.min(low), amount.max(high))
        });
        let (low, high) = (pixels(low), pixels(high));
        let greatest = high.max(-low);
        let units: &[(f64, &str)] = match metric {
            Metric::DatabaseBytes | Metric::StorageBytes | Metric::EgressBytes => &[
                (1.0, " B"),
                (1024.0, " KiB"),
                (1_048_576.0, " MiB"),
                (1_073_741_824.0, " GiB"),
                (1_099_511_627_776.0, " TiB"),
            ],
            Metric::Ec2Compute => &[(1.0, " s"), (60.0, " min"), (3600.0, " h"), (3.6e6, "k h")],
            Metric::AiCredits => &[(1e6, ""), (1e9, "k"), (1e12, "M"), (1e15, "bn")],
            _ => &[(1.0, ""), (1e3, "k"), (1e6, "M"), (1e9, "bn"), (1e12, "tn")],
        };
        let (per_unit, unit) = units
            .iter()
            .rev()
            .find(|(per_unit, _)| greatest >= *per_unit)
            .or(units.first())
            .copied()
            .unwrap_or((1.0, ""));
        let smallest = units.first().is_some_and(|(first, _)| per_unit <= *first);
        Self {
            per_unit,
            unit,
            low: low / per_unit,
            high: high / per_unit,
            whole: smallest && metric.decimals() == 0,
        }
    }

    fn value(&self, amount: i64) -> f64 {
        pixels(amount) / self.per_unit
    }

    /// The step between two lines: 1, 2 or 5 of a power of ten, so that there are about four.
    fn step(&self) -> f64 {
        let rough = (self.high - self.low) / 4.0;
        if rough <= 0.0 {
            return 1.0;
        }
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .map(|times| times * power)
            .into_iter()
            .find(|step| *step >= rough * 0.999)
            .unwrap_or(power);
        if self.whole { step.max(1.0) } else { step }
    }

    /// From at or below the least to at or above the greatest; 0 is one of them.
    fn ticks(&self) -> Vec<f64> {
        let step = self.step();
        let least = if self.low < 0.0 { 0.0 } else { 1.0 };
        let last = (self.high / step).ceil().max(least);
        let mut ticks = Vec::new();
        let mut tick = (self.low / step).floor();
        while tick <= last {
            ticks.push(tick * step);
            tick += 1.0;
        }
        ticks
    }

    fn label(&self, value: f64) -> String {
        // Of 0.05 and 0.5 all digits, of 12.000000001 none behind the point.
        let decimals = (1..=6)
            .find(|places| self.step() >= 0.999 * 10_f64.powi(1 - places))
            .map_or(6, |places| usize::try_from(places - 1).unwrap_or(0));
        let number = format!("{value:.decimals$}");
        // Of -0.0, too.
        let number = if number.bytes().all(|b| b"-0.".contains(&b)) {
            "0"
        } else {
            &number
        };
        let unit = if number == "0" { "" } else { self.unit };
        format!("{number}{unit}")
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a bar is some hundred pixels high; the figures stand in the table"
)]
fn pixels(amount: i64) -> f64 {
    amount as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn days(amounts: &[i64]) -> Vec<(NaiveDate, i64)> {
        let first: NaiveDate = "2026-01-01".parse().unwrap();
        first.iter_days().zip(amounts.iter().copied()).collect()
    }

    fn svg(metric: Metric, amounts: &[i64]) -> String {
        let days = days(amounts);
        bars("Tokens <i>", "t", metric, &days)
            .unwrap()
            .into_string()
    }

    fn labels(metric: Metric, amounts: &[i64]) -> Vec<String> {
        let scale = Scale::of(metric, amounts.iter().copied());
        scale
            .ticks()
            .iter()
            .map(|tick| scale.label(*tick))
            .collect()
    }

    #[test]
    fn every_day_with_something_has_a_bar() {
        let svg = svg(Metric::AiTokens, &[5, 0, -3, i64::MAX, 1]);
        assert_eq!(svg.matches("class=\"bar\"").count(), 3);
        assert_eq!(svg.matches("class=\"bar correction\"").count(), 1);
        assert!(!svg.contains("height=\"0\""), "a little is not nothing");
        assert!(svg.contains("role=\"img\" aria-labelledby=\"t\""));
        assert!(svg.contains("Tokens &lt;i&gt;"));
    }

    #[test]
    fn colours_and_fonts_are_the_stylesheets() {
        let svg = svg(Metric::DatabaseBytes, &[1 << 30, 3 << 29]);
        for fixed in ["#", "font-family", "style=", "opacity"] {
            assert!(!svg.contains(fixed), "{fixed}: {svg}");
        }
        assert_eq!(svg.matches("<svg").count(), 1);
        assert_eq!(svg.matches("</svg>").count(), 1);
    }

    #[test]
    fn lines_stand_at_round_figures() {
        assert_eq!(
            labels(Metric::DatabaseBytes, &[1 << 30, 3 << 29]),
            ["0", "0.5 GiB", "1.0 GiB", "1.5 GiB"]
        );
        assert_eq!(labels(Metric::McpCalls, &[0, 2]), ["0", "1", "2"]);
        assert_eq!(labels(Metric::McpCalls, &[0, 0]), ["0", "1"]);
        assert_eq!(
            labels(Metric::AiTokens, &[-1_000, 2_500]),
            ["-1k", "0", "1k", "2k", "3k"]
        );
        assert_eq!(
            labels(Metric::Ec2Compute, &[7_200]),
            ["0", "0.5 h", "1.0 h", "1.5 h", "2.0 h"]
        );
        assert_eq!(
            labels(Metric::AiCredits, &[20_000]),
            ["0", "0.005", "0.010", "0.015", "0.020"]
        );
        for extreme in [&[i64::MIN, i64::MAX][..], &[i64::MIN], &[1], &[-1]] {
            for metric in Metric::ALL {
                let labels = labels(*metric, extreme);
                assert!((2..=8).contains(&labels.len()), "{metric}: {labels:?}");
                assert!(labels.iter().any(|label| label == "0"), "{labels:?}");
            }
        }
    }

    #[test]
    fn days_are_named_where_there_is_room() {
        for count in [1, 2, 5, 7, 30, 31, 90, 366] {
            let marked = marked_days(count);
            assert!((1..=5).contains(&marked.len()), "{count}: {marked:?}");
            let svg = svg(Metric::AiTokens, &vec![1; count]);
            assert_eq!(svg.matches("class=\"bar\"").count(), count);
            assert!(!svg.contains("width=\"0\""), "{count}: {svg}");
            let first = if count > 180 { "Jan 2026" } else { "1 Jan" };
            assert!(svg.contains(first), "{count}: {svg}");
        }
    }
}
