#include "go_asm.h"
#include "textflag.h"

// func spawn(pc, nr, a0, a1, a2, a3, a4 uintptr) uintptr
//
// The child keeps the instruction's address in R8, which the kernel preserves.
// It uses no stack: a vfork child's stack is its parent's.
TEXT ·spawn(SB), NOSPLIT, $0-32
	MOVW pc+0(FP), R8
	MOVW nr+4(FP), R7
	MOVW a0+8(FP), R0
	MOVW a1+12(FP), R1
	MOVW a2+16(FP), R2
	MOVW a3+20(FP), R3
	MOVW a4+24(FP), R4
	SWI  $0
	CMP  $0, R0
	BEQ  next
	MOVW R0, ret+28(FP)
	RET

next:
	MOVW instr_code(R8), R6
	MOVW instr_dst(R8), R9
	CMP  $const_opSyscall, R6
	BEQ  syscall
	MOVW (instr_arg+0)(R8), R1
	MOVW (R1), R1
	CMP  $const_opLoad, R6
	BEQ  load
	CMP  $const_opStore, R6
	BEQ  store
	CMP  $const_opAdd, R6
	BEQ  add
	CMP  $const_opJumpEqual, R6
	BEQ  jumpEqual
	CMP  $const_opThreadLoad, R6
	BEQ  threadLoad
	WORD $0xe7f001f0 // undefined instruction: SIGILL

syscall:
	MOVW (instr_arg+0)(R8), R0
	MOVW (R0), R0
	MOVW (instr_arg+4)(R8), R1
	MOVW (R1), R1
	MOVW (instr_arg+8)(R8), R2
	MOVW (R2), R2
	MOVW (instr_arg+12)(R8), R3
	MOVW (R3), R3
	MOVW (instr_arg+16)(R8), R4
	MOVW (R4), R4
	MOVW (instr_arg+20)(R8), R5
	MOVW (R5), R5
	MOVW instr_nr(R8), R7
	MOVW (R7), R7
	SWI  $0
	MOVW R0, (R9)
	B    advance

load:
	MOVW (R1), R1
	MOVW R1, (R9)
	B    advance

store:
	MOVW (R9), R9
	MOVW R1, (R9)
	B    advance

add:
	MOVW (R9), R2
	ADD  R1, R2
	MOVW R2, (R9)
	B    advance

threadLoad:
	MRC  15, 0, R0, C13, C0, 3 // TPIDRURO
	MOVW (R0), R1
	MOVW R1, (R9)

advance:
	ADD $instr__size, R8
	B   next

jumpEqual:
	MOVW (instr_arg+4)(R8), R2
	MOVW (R2), R2
	CMP  R1, R2
	BNE  advance
	MOVW R9, R8
	B    next
