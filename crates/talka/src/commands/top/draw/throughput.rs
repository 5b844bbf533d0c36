//! How fast the node answers, and what it could do.

use super::Theme;
use crate::{
    commands::top::{
        grid::{Column, cut, grid},
        screen::Screen,
    },
    quantity::per_second,
};
use ratatui::text::Line;

/// Heights of a column, an eighth of a line each.
const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Lines that the picture has at most.
const PICTURE_MAX: usize = 8;

pub fn lines(screen: &Screen, theme: Theme, width: usize, height: usize) -> Vec<Line<'static>> {
    let status = &screen.now.status;
    let (now, count) = (screen.last_rates(), screen.rates.len().max(1));
    let tokens: Vec<f64> = screen.rates.iter().map(|rates| rates.tokens_per_s).collect();
    let most = tokens.iter().copied().fold(0.0, f64::max);
    let average = tokens.iter().sum::<f64>() / count as f64;
    let told = [
        format!(
            "tokens    {:.1}/s now, {average:.1} on average, {most:.1} at most",
            now.tokens_per_s
        ),
        format!(
            "so far    {} tokens chosen, {} running",
            status.tokens_chosen, status.requests_running
        ),
        format!("busy      {:3.0} % of the time, by stages here", now.busy * 100.0),
        format!("network   {} paid for", per_second(now.flops_per_s as u64, "FLOP")),
        format!(
            "here      {} in products, {} of weights read",
            per_second(status.flops_per_second, "FLOP"),
            per_second(status.memory_bytes_per_second, "B")
        ),
    ];
    let upstreams = upstreams(screen, theme, width);
    let room = height.saturating_sub(told.len() + upstreams.len()).min(PICTURE_MAX);
    let picture = picture(&tokens, most, width, room);
    let picture = picture.into_iter().map(|line| Line::styled(line, theme.good()));
    let told = told.into_iter().map(|line| Line::raw(cut(&line, width)));
    picture.chain(told).chain(upstreams).collect()
}

/// The latest `values` as columns of characters, from the top line down; the latest stands rightmost.
fn picture(values: &[f64], most: f64, width: usize, height: usize) -> Vec<String> {
    let shown = &values[values.len().saturating_sub(width)..];
    let eighths = |value: f64| {
        let part = if most > 0.0 { value / most } else { 0.0 };
        (part * (height * 8) as f64).round() as usize
    };
    let line = |below: usize| {
        let bar = |value: &f64| BARS[eighths(*value).saturating_sub(below * 8).min(8)];
        shown.iter().map(bar).collect::<String>()
    };
    (0..height).rev().map(line).collect()
}

fn upstreams(screen: &Screen, theme: Theme, width: usize) -> Vec<Line<'static>> {
    let upstreams = &screen.now.status.upstreams;
    if upstreams.is_empty() {
        return Vec::new();
    }
    let columns = vec![
        Column::new("UPSTREAM", 0, upstreams.iter().map(|upstream| upstream.name.clone())),
        Column::new("ASKED", 1, upstreams.iter().map(|upstream| upstream.asked.to_string())),
        Column::new("FAILED", 1, upstreams.iter().map(|upstream| upstream.failed.to_string())),
        Column::new("AT", 2, upstreams.iter().map(|upstream| upstream.address.clone())),
    ];
    grid(columns, width, screen.scrolled(), theme, |_| ratatui::style::Style::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_as_high_as_the_greatest_value_and_shows_the_latest() {
        assert_eq!(picture(&[0.0, 1.0, 2.0, 4.0], 4.0, 4, 2), ["   █", " ▄██"]);
        assert_eq!(picture(&[9.0, 0.5, 1.0], 1.0, 2, 1), ["▄█"]);
        assert_eq!(picture(&[0.0], 0.0, 3, 1), [" "]);
        assert_eq!(picture(&[], 0.0, 3, 2), ["", ""]);
        assert_eq!(picture(&[1.0], 1.0, 0, 0), Vec::<String>::new());
    }
}
