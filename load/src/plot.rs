//! Lines over an axis, as SVG.

use std::fmt::Write;

const WIDTH: f64 = 820.0;
const HEIGHT: f64 = 340.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 190.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
const COLOURS: [&str; 8] = ["#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#7f7f7f"];

pub(crate) struct Chart {
    pub(crate) title: String,
    pub(crate) x: &'static str,
    pub(crate) y: String,
    /// Equal distances along x are equal ratios.
    pub(crate) log_x: bool,
    pub(crate) lines: Vec<Line>,
}

pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

impl Chart {
    /// The picture; nothing when there is no point.
    pub(crate) fn svg(&self) -> Option<String> {
        let points = || self.lines.iter().flat_map(|line| line.points.iter().copied());
        let (first, last) = (points().map(|(x, _)| x).reduce(f64::min)?, points().map(|(x, _)| x).reduce(f64::max)?);
        let top = step_above(points().map(|(_, y)| y).reduce(f64::max)?);
        let along = |x: f64| if self.log_x { x.max(1.0).log10() } else { x };
        let span = (along(last) - along(first)).max(f64::MIN_POSITIVE);
        let place_x = |x: f64| LEFT + (along(x) - along(first)) / span * (WIDTH - LEFT - RIGHT);
        let place_y = |y: f64| HEIGHT - BOTTOM - y / top * (HEIGHT - TOP - BOTTOM);

        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
             font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        );
        let text = |x: f64, y: f64, anchor: &str, said: &str| {
            let said = said.replace('&', "&amp;").replace('<', "&lt;");
            format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{said}</text>\n")
        };
        svg += &text(LEFT, TOP - 16.0, "start", &format!("{}: {}", self.title, self.y));
        svg += &text((WIDTH - RIGHT + LEFT) / 2.0, HEIGHT - 10.0, "middle", self.x);
        for step in 0..=4 {
            let value = top * f64::from(step) / 4.0;
            let (y, right) = (place_y(value), WIDTH - RIGHT);
            writeln!(svg, "<path d=\"M{LEFT} {y:.1}H{right}\" stroke=\"#ddd\"/>").expect("a string takes any text");
            svg += &text(LEFT - 8.0, y + 4.0, "end", &short(value));
        }
        for x in self.marks(first, last) {
            svg += &text(place_x(x), HEIGHT - BOTTOM + 18.0, "middle", &short(x));
        }
        for (number, line) in self.lines.iter().enumerate() {
            let colour = COLOURS[number % COLOURS.len()];
            let path: Vec<String> =
                line.points.iter().map(|(x, y)| format!("{:.1},{:.1}", place_x(*x), place_y(*y))).collect();
            let path = path.join(" ");
            writeln!(svg, "<polyline points=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>")
                .expect("a string takes any text");
            let (x, y) = (WIDTH - RIGHT + 14.0, TOP + 18.0 * number as f64);
            writeln!(svg, "<rect x=\"{x}\" y=\"{y:.1}\" width=\"10\" height=\"3\" fill=\"{colour}\"/>")
                .expect("a string takes any text");
            svg += &text(x + 16.0, y + 6.0, "start", &line.name);
        }
        svg.push_str("</svg>\n");
        Some(svg)
    }

    /// Where the axis along x is marked: at every point if there are few, else at five places.
    fn marks(&self, first: f64, last: f64) -> Vec<f64> {
        match self.lines.first() {
            Some(line) if line.points.len() <= 6 => line.points.iter().map(|(x, _)| *x).collect(),
            Some(_) | None => (0..=4).map(|step| first + (last - first) * f64::from(step) / 4.0).collect(),
        }
    }
}

/// The next number above that is 1, 2, 4 or 8 times a power of ten.
fn step_above(value: f64) -> f64 {
    let power = 10_f64.powf(value.max(1e-9).log10().floor());
    [1.0, 2.0, 4.0, 8.0, 10.0].into_iter().map(|step| step * power).find(|step| *step >= value).unwrap_or(10.0 * power)
}

fn short(value: f64) -> String {
    match value {
        _ if value >= 1e6 => format!("{} M", trimmed(value / 1e6)),
        _ if value >= 1e3 => format!("{} k", trimmed(value / 1e3)),
        _ => trimmed(value),
    }
}

fn trimmed(value: f64) -> String {
    format!("{value:.2}").trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_shows_every_point_within_its_frame() {
        let line = |name: &str, points: &[(f64, f64)]| Line { name: name.to_owned(), points: points.to_vec() };
        let chart = Chart {
            title: "growth".to_owned(),
            x: "tasks",
            y: "cost".to_owned(),
            log_x: true,
            lines: vec![line("a<b", &[(1e5, 1.0), (1e6, 2.0), (1e7, 3.0)]), line("b", &[(1e5, 0.0)])],
        };
        let svg = chart.svg().expect("points");
        // The largest value, 3, stands below the top of the scale, 4; equal ratios are equal distances.
        assert!(svg.contains("points=\"80.0,227.5 355.0,165.0 630.0,102.5\""), "{svg}");
        assert!(svg.contains(">a&lt;b<") && svg.contains(">10 M<") && svg.contains(">4<"), "{svg}");
        assert!(Chart { lines: Vec::new(), ..chart }.svg().is_none());
    }

    #[test]
    fn scales_end_at_round_numbers() {
        assert_eq!([0.3, 1.0, 3.0, 45_000.0, 81.0].map(step_above), [0.4, 1.0, 4.0, 80_000.0, 100.0]);
        assert_eq!([0.25, 1500.0, 2e6].map(short), ["0.25", "1.5 k", "2 M"]);
    }
}
