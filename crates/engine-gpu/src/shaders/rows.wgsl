// out `[8, n]` f32 = x `[8, k]` f32 times w `[n, k]` bf16, transposed: what a batch of eight tokens takes, where reading the
// weights is the work.
//
// A workgroup makes four columns: each of its 64 threads takes every 64th piece of eight weights, and what they have is
// added at the end. k is a multiple of 8; n is anything.

@group(0) @binding(0) var<uniform> size: vec4<u32>; // 8, n, k / 8
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> w: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

// [thread][row, column], with room between so that threads meet in no bank
var<workgroup> parts: array<f32, 2112>;

// The first and the second halves of words that hold two bf16 each.
fn even(words: vec4<u32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(words << vec4(16u));
}

fn odd(words: vec4<u32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(words & vec4(0xffff0000u));
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) me: u32) {
    let first = group.x * 4u;
    let columns = min(vec4(first) + vec4(0u, 1u, 2u, 3u), vec4(size.y - 1u)) * size.z;
    var s0 = vec4(0.0);
    var s1 = vec4(0.0);
    var s2 = vec4(0.0);
    var s3 = vec4(0.0);
    var s4 = vec4(0.0);
    var s5 = vec4(0.0);
    var s6 = vec4(0.0);
    var s7 = vec4(0.0);
    for (var i = me; i < size.z; i += 64u) {
        let w0 = w[columns.x + i];
        let w1 = w[columns.y + i];
        let w2 = w[columns.z + i];
        let w3 = w[columns.w + i];
        let evens = mat4x4(even(w0), even(w1), even(w2), even(w3));
        let odds = mat4x4(odd(w0), odd(w1), odd(w2), odd(w3));
        //ROWS
    }
    let mine = me * 33u;
    //PARTS
    workgroupBarrier();
    if me >= 32u {
        return;
    }
    var sum = 0.0;
    for (var thread = 0u; thread < 64u; thread += 1u) {
        sum += parts[thread * 33u + me];
    }
    let column = first + me % 4u;
    if column < size.y {
        out[me / 4u * size.y + column] = sum;
    }
}
