//! The member's account, and everybody's standing.

use super::Theme;
use crate::commands::top::{
    grid::{Column, cut, grid},
    screen::Screen,
};
use ratatui::{style::Style, text::Line};
use talka_node::{api::MemberReport, base::Credits};

pub fn lines(screen: &Screen, theme: Theme, width: usize) -> Vec<Line<'static>> {
    let (credits, rates) = (&screen.now.credits, screen.last_rates());
    let a_minute = |rate: f64| Credits((rate * 60.0) as u64);
    let told = [
        format!(
            "balance   {}, {} reserved, {} held",
            credits.balance, credits.reserved, credits.held
        ),
        format!(
            "a minute  {} earned, {} spent",
            a_minute(rates.earned_per_s),
            a_minute(rates.spent_per_s)
        ),
    ];
    let mut lines: Vec<_> = told.iter().map(|line| Line::raw(cut(line, width))).collect();
    lines.push(Line::default());
    lines.extend(members(screen, theme, width));
    lines
}

fn members(screen: &Screen, theme: Theme, width: usize) -> Vec<Line<'static>> {
    let credits = &screen.now.credits;
    let column = |title, rank, cell: &dyn Fn(&MemberReport) -> String| {
        Column::new(title, rank, credits.members.iter().map(cell))
    };
    let is_own = |member: &MemberReport| member.member == credits.member;
    let columns = vec![
        column("MEMBER", 0, &|member| {
            format!("{}{}", member.name, if is_own(member) { " (this)" } else { "" })
        }),
        column("BALANCE", 0, &|member| member.balance.to_string()),
        column("EARNED", 1, &|member| member.earned.to_string()),
        column("SPENT", 1, &|member| member.spent.to_string()),
        column("GRANTED", 3, &|member| member.granted.to_string()),
        column("WORK", 2, &|member| format!("{} GFLOP", member.flops.0 / 1_000_000_000)),
    ];
    grid(columns, width, screen.scrolled(), theme, |place| {
        if is_own(&credits.members[place]) { theme.heading() } else { Style::new() }
    })
}
