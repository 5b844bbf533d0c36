// out `[m, n]` = a `[m, k]` times b `[n, k]`, transposed; what lies behind `Element`, `Sum` and `Part` is said above this text.
//
// A workgroup makes a tile of 128 × 128, each of its 256 threads 8 × 8 of it. Sixteen elements of k at a time are brought
// to the memory of the workgroup, turned so that four neighbours in a row of the tile are one vector. k is a multiple
// of 16, in elements; m and n are anything.

@group(0) @binding(0) var<uniform> size: vec4<u32>; // m, n, vectors in a row of a and b
@group(0) @binding(1) var<storage, read> a: array<vec4<Element>>;
@group(0) @binding(2) var<storage, read> b: array<vec4<Element>>;
@group(0) @binding(3) var<storage, read_write> out: array<Sum>;

// [k in the step][row of the tile / 4]
var<workgroup> a_step: array<vec4<Element>, 512>;
var<workgroup> b_step: array<vec4<Element>, 512>;

fn store(row: u32, column: u32, sums: vec4<Sum>) {
    if row >= size.x {
        return;
    }
    for (var i = 0u; i < 4u; i += 1u) {
        if column + i < size.y {
            out[row * size.y + column + i] = sums[i];
        }
    }
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) me: u32) {
    let tile = vec2(group.y, group.x) * 128u;
    let ty = me / 16u;
    let tx = me % 16u;
    // Half of the threads bring a, half b: each a block of four rows and four elements.
    let four = (me % 128u) / 4u;
    let vector = me % 4u;
    let is_a = me < 128u;
    let last = select(size.y, size.x, is_a) - 1u;
    let first = select(tile.y, tile.x, is_a) + four * 4u;
    let rows = min(vec4(first) + vec4(0u, 1u, 2u, 3u), vec4(last)) * size.z + vec4(vector);
    let place = vector * 128u + four;
    //SUMS
    for (var k = 0u; k < size.z; k += 4u) {
        if is_a {
            let r0 = a[rows.x + k];
            let r1 = a[rows.y + k];
            let r2 = a[rows.z + k];
            let r3 = a[rows.w + k];
            a_step[place] = vec4(r0.x, r1.x, r2.x, r3.x);
            a_step[place + 32u] = vec4(r0.y, r1.y, r2.y, r3.y);
            a_step[place + 64u] = vec4(r0.z, r1.z, r2.z, r3.z);
            a_step[place + 96u] = vec4(r0.w, r1.w, r2.w, r3.w);
        } else {
            let r0 = b[rows.x + k];
            let r1 = b[rows.y + k];
            let r2 = b[rows.z + k];
            let r3 = b[rows.w + k];
            b_step[place] = vec4(r0.x, r1.x, r2.x, r3.x);
            b_step[place + 32u] = vec4(r0.y, r1.y, r2.y, r3.y);
            b_step[place + 64u] = vec4(r0.z, r1.z, r2.z, r3.z);
            b_step[place + 96u] = vec4(r0.w, r1.w, r2.w, r3.w);
        }
        workgroupBarrier();
        //STEPS
        workgroupBarrier();
    }
    let row = tile.x + ty * 4u;
    let column = tile.y + tx * 4u;
    //STORES
}
