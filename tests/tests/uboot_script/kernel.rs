//! Kernels that write `<KERNEL>` and their command line, from `root=test` on, to the first serial port of
//! QEMU's `virt`, and turn the machine off.

/// `booti` image: header, then code for the first serial port of `virt` at 0x0900_0000.
pub const ARM64: &[u32] = &[
    // Header: branch to the code, image size 0x1000, "may be placed anywhere", magic.
    0x1400_0010,
    0,
    0,
    0,
    0x1000,
    0,
    0xa,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0x644d_5241,
    0,
    0xd2a1_2002, // mov x2, #0x09000000
    0x1000_03a3, // adr x3, mark
    0x3840_1464, // next: ldrb w4, [x3], #1
    0x3400_0064, // cbz w4, done
    0x3900_0044, // strb w4, [x2]
    0x17ff_fffd, // b next
    0xb940_0405, // done: ldr w5, [x0, #4] (size of the device tree)
    0x5ac0_08a5, // rev w5, w5
    0x8b05_0005, // add x5, x0, x5
    0x3000_02e3, // search: adr x3, key
    0xaa00_03e6, // mov x6, x0
    0x3840_1464, // compare: ldrb w4, [x3], #1
    0x3400_0104, // cbz w4, found
    0x3840_14c7, // ldrb w7, [x6], #1
    0x6b07_009f, // cmp w4, w7
    0x54ff_ff80, // b.eq compare
    0x9100_0400, // add x0, x0, #1
    0xeb05_001f, // cmp x0, x5
    0x54ff_fee3, // b.lo search
    0x1400_0005, // b end
    0x3840_1404, // found: ldrb w4, [x0], #1
    0x3400_0064, // cbz w4, end
    0x3900_0044, // strb w4, [x2]
    0x17ff_fffd, // b found
    0x5280_0144, // end: mov w4, #10
    0x3900_0044, // strb w4, [x2]
    0x52b0_8000, // mov w0, #0x84000000
    0x7280_0100, // movk w0, #8 (PSCI SYSTEM_OFF)
    0xd400_0002, // hvc #0
    0x1400_0000, // b .
    0x5245_4b3c,
    0x3e4c_454e,
    0x6f6f_7200,
    0x6574_3d74,
    0x0000_7473, // "<KERNEL>", "root=test"
];

/// `bootz` image, the same program.
pub const ARMHF: &[u32] = &[
    // Header: branch to the code, magic, from 0 to 0x1000.
    0xea00_000a,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0x016f_2818,
    0,
    0x1000,
    0xe3a0_0409, // mov r0, #0x09000000
    0xe28f_3070, // adr r3, mark
    0xe4d3_4001, // next: ldrb r4, [r3], #1
    0xe354_0000, // cmp r4, #0
    0x15c0_4000, // strbne r4, [r0]
    0x1aff_fffb, // bne next
    0xe592_5004, // ldr r5, [r2, #4] (size of the device tree)
    0xe6bf_5f35, // rev r5, r5
    0xe082_5005, // add r5, r2, r5
    0xe28f_305c, // search: adr r3, key
    0xe1a0_6002, // mov r6, r2
    0xe4d3_4001, // compare: ldrb r4, [r3], #1
    0xe354_0000, // cmp r4, #0
    0x0a00_0006, // beq found
    0xe4d6_7001, // ldrb r7, [r6], #1
    0xe154_0007, // cmp r4, r7
    0x0aff_fff9, // beq compare
    0xe282_2001, // add r2, r2, #1
    0xe152_0005, // cmp r2, r5
    0x3aff_fff4, // blo search
    0xea00_0003, // b end
    0xe4d2_4001, // found: ldrb r4, [r2], #1
    0xe354_0000, // cmp r4, #0
    0x15c0_4000, // strbne r4, [r0]
    0x1aff_fffb, // bne found
    0xe3a0_400a, // end: mov r4, #10
    0xe5c0_4000, // strb r4, [r0]
    0xe300_0008, // movw r0, #8
    0xe348_0400, // movt r0, #0x8400 (PSCI SYSTEM_OFF)
    0xe140_0070, // hvc #0
    0xeaff_fffe, // b .
    0x5245_4b3c,
    0x3e4c_454e,
    0,
    0x746f_6f72,
    0x7365_743d,
    0x0000_0074, // "<KERNEL>", "root=test"
];
