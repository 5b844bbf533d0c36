// Writes words to memory, and adds them up again: `sum` reads as fast as memory gives, with little to do beside.
//
// A workgroup takes 4,096 vectors, neighbours side by side; `words` is a multiple of that.

@group(0) @binding(0) var<storage, read_write> words: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> sums: array<u32>; // one for each workgroup

var<workgroup> total: atomic<u32>;

@compute @workgroup_size(256)
fn fill(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) me: u32) {
    for (var i = 0u; i < 16u; i += 1u) {
        let at = group.x * 4096u + i * 256u + me;
        words[at] = (vec4(at * 4u) + vec4(0u, 1u, 2u, 3u)) * vec4(2654435761u);
    }
}

@compute @workgroup_size(256)
fn sum(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) me: u32) {
    let first = group.x * 4096u + me;
    var found = vec4(0u);
    //READS
    atomicAdd(&total, found.x + found.y + found.z + found.w);
    workgroupBarrier();
    if me == 0u {
        sums[group.x] = atomicLoad(&total);
    }
}
