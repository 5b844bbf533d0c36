//! The text of the kernels.
//!
//! WGSL has no way to unroll a loop, and what must stay in registers is lost in one. So the innermost lines are written here.

use crate::Precision;
use std::fmt::Write;

/// Rows and columns of a tile of a product.
pub(crate) const TILE: u32 = 128;
/// Elements of k that a product takes at once: its rows are a multiple of that.
pub(crate) const PRODUCT_STEP: usize = 16;
/// Rows of a batch.
pub(crate) const BATCH_ROWS: usize = 8;
/// Columns that a workgroup makes of a batch.
pub(crate) const BATCH_COLUMNS: u32 = 4;
/// Bytes that a workgroup reads: 4,096 vectors of 16.
pub(crate) const MEMORY_STEP: u64 = 4_096 * 16;

const AXES: [char; 4] = ['x', 'y', 'z', 'w'];

/// A product in this precision: function `main`.
pub(crate) fn product(precision: Precision) -> String {
    let head = match precision {
        Precision::F32 => "alias Element = f32;\nalias Sum = f32;\n",
        Precision::F16 => "enable f16;\nalias Element = f16;\nalias Sum = f32;\n",
        Precision::Int8 => "alias Element = u32;\nalias Sum = i32;\n",
    };
    let mut sums = String::new();
    let mut steps = String::new();
    let mut stores = String::new();
    // Sums of f16 are begun anew with each step, so that little is lost to rounding.
    let (sum, in_parts) = if precision == Precision::F16 { ("p", true) } else { ("c", false) };
    for (i, h) in cells() {
        _ = writeln!(sums, "var c{i}{h} = vec4<Sum>();");
        if in_parts {
            _ = writeln!(steps, "var p{i}{h} = vec4<f16>();");
        }
    }
    // A quarter in a loop: written out whole, some drivers compile for seconds, and no faster code.
    let quarter = PRODUCT_STEP / 4;
    _ = writeln!(steps, "for (var q = 0u; q < 4u; q += 1u) {{\nlet at = q * {}u;", quarter * 32);
    for k in 0..quarter {
        for (name, me) in [("a", "ty"), ("b", "tx")] {
            for half in 0..2 {
                let from = k * 32 + half * 16;
                _ = writeln!(steps, "let {name}{k}_{half} = {name}_step[at + {from}u + {me}];");
            }
        }
        for (i, h) in cells() {
            let left = format!("a{k}_{}.{}", i / 4, AXES[i % 4]);
            let right = format!("b{k}_{h}");
            let add = match precision {
                Precision::F32 | Precision::F16 => format!("{left} * {right}"),
                Precision::Int8 => dots(&left, &right),
            };
            _ = writeln!(steps, "{sum}{i}{h} += {add};");
        }
    }
    steps.push_str("}\n");
    for (i, h) in cells() {
        if in_parts {
            _ = writeln!(steps, "c{i}{h} += vec4<f32>(p{i}{h});");
        }
        let (row, column) = (i / 4 * 64 + i % 4, h * 64);
        _ = writeln!(stores, "store(row + {row}u, column + {column}u, c{i}{h});");
    }
    let text = include_str!("shaders/product.wgsl");
    let text = text.replace("//SUMS", &sums).replace("//STEPS", &steps);
    head.to_owned() + &text.replace("//STORES", &stores)
}

/// Row and half of the vectors of what a thread makes: 8 × 8 numbers.
fn cells() -> impl Iterator<Item = (usize, usize)> {
    (0..8).flat_map(|i| [(i, 0), (i, 1)])
}

/// The four products of one word of bytes with four others.
fn dots(left: &str, right: &str) -> String {
    let each = AXES.map(|axis| format!("dot4I8Packed({left}, {right}.{axis})"));
    format!("vec4({})", each.join(", "))
}

/// The product of a batch of eight: function `main`.
pub(crate) fn rows() -> String {
    let mut rows = String::new();
    let mut parts = String::new();
    for row in 0..BATCH_ROWS {
        _ = writeln!(rows, "let at{row} = ({row}u * size.z + i) * 2u;");
        _ = writeln!(rows, "let l{row} = x[at{row}];\nlet h{row} = x[at{row} + 1u];");
        _ = writeln!(
            rows,
            "s{row} += vec4(l{row}.xz, h{row}.xz) * evens + vec4(l{row}.yw, h{row}.yw) * odds;"
        );
        for (column, axis) in AXES.into_iter().enumerate() {
            _ = writeln!(parts, "parts[mine + {}u] = s{row}.{axis};", row * 4 + column);
        }
    }
    include_str!("shaders/rows.wgsl").replace("//ROWS", &rows).replace("//PARTS", &parts)
}

/// Memory: functions `fill` and `sum`.
pub(crate) fn memory() -> String {
    let reads: String =
        (0..16).map(|i| format!("found += words[first + {}u];\n", i * 256)).collect();
    include_str!("shaders/memory.wgsl").replace("//READS", &reads)
}
