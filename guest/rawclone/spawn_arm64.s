#include "go_asm.h"
#include "textflag.h"

// func spawn(pc, nr, a0, a1, a2, a3, a4 uintptr) uintptr
//
// The child keeps the instruction's address in R19, which the kernel preserves.
// It uses no stack: a vfork child's stack is its parent's.
TEXT ·spawn(SB), NOSPLIT, $0-64
	MOVD pc+0(FP), R19
	MOVD nr+8(FP), R8
	MOVD a0+16(FP), R0
	MOVD a1+24(FP), R1
	MOVD a2+32(FP), R2
	MOVD a3+40(FP), R3
	MOVD a4+48(FP), R4
	SVC
	CBZ  R0, next
	MOVD R0, ret+56(FP)
	RET

next:
	MOVD instr_code(R19), R9
	MOVD instr_dst(R19), R20
	CMP  $const_opSyscall, R9
	BEQ  syscall
	MOVD (instr_arg+0)(R19), R10
	MOVD (R10), R10
	CMP  $const_opLoad, R9
	BEQ  load
	CMP  $const_opStore, R9
	BEQ  store
	CMP  $const_opAdd, R9
	BEQ  add
	CMP  $const_opJumpEqual, R9
	BEQ  jumpEqual
	CMP  $const_opThreadLoad, R9
	BEQ  threadLoad
	BRK

syscall:
	MOVD (instr_arg+0)(R19), R0
	MOVD (R0), R0
	MOVD (instr_arg+8)(R19), R1
	MOVD (R1), R1
	MOVD (instr_arg+16)(R19), R2
	MOVD (R2), R2
	MOVD (instr_arg+24)(R19), R3
	MOVD (R3), R3
	MOVD (instr_arg+32)(R19), R4
	MOVD (R4), R4
	MOVD (instr_arg+40)(R19), R5
	MOVD (R5), R5
	MOVD instr_nr(R19), R8
	MOVD (R8), R8
	SVC
	MOVD R0, (R20)
	B    advance

load:
	MOVD (R10), R10
	MOVD R10, (R20)
	B    advance

store:
	MOVD (R20), R20
	MOVD R10, (R20)
	B    advance

add:
	MOVD (R20), R11
	ADD  R10, R11
	MOVD R11, (R20)
	B    advance

threadLoad:
	WORD $0xd53bd04a // MRS TPIDR_EL0, R10
	MOVD (R10), R10
	MOVD R10, (R20)

advance:
	ADD $instr__size, R19
	B   next

jumpEqual:
	MOVD (instr_arg+8)(R19), R11
	MOVD (R11), R11
	CMP  R10, R11
	BNE  advance
	MOVD R20, R19
	B    next
