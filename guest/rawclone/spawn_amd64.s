#include "go_asm.h"
#include "textflag.h"

// func spawn(pc, nr, a0, a1, a2, a3, a4 uintptr) uintptr
//
// The child keeps the instruction's address in R12, which the kernel preserves.
// It uses no stack: a vfork child's stack is its parent's.
TEXT ·spawn(SB), NOSPLIT, $0-64
	MOVQ pc+0(FP), R12
	MOVQ nr+8(FP), AX
	MOVQ a0+16(FP), DI
	MOVQ a1+24(FP), SI
	MOVQ a2+32(FP), DX
	MOVQ a3+40(FP), R10
	MOVQ a4+48(FP), R8
	SYSCALL
	TESTQ AX, AX
	JZ   next
	MOVQ AX, ret+56(FP)
	RET

next:
	MOVQ instr_code(R12), AX
	MOVQ instr_dst(R12), R13
	CMPQ AX, $const_opSyscall
	JEQ  syscall
	MOVQ (instr_arg+0)(R12), BX
	MOVQ (BX), BX
	CMPQ AX, $const_opLoad
	JEQ  load
	CMPQ AX, $const_opStore
	JEQ  store
	CMPQ AX, $const_opAdd
	JEQ  add
	CMPQ AX, $const_opJumpEqual
	JEQ  jumpEqual
	CMPQ AX, $const_opThreadLoad
	JEQ  threadLoad
	INT  $3

syscall:
	MOVQ (instr_arg+0)(R12), DI
	MOVQ (DI), DI
	MOVQ (instr_arg+8)(R12), SI
	MOVQ (SI), SI
	MOVQ (instr_arg+16)(R12), DX
	MOVQ (DX), DX
	MOVQ (instr_arg+24)(R12), R10
	MOVQ (R10), R10
	MOVQ (instr_arg+32)(R12), R8
	MOVQ (R8), R8
	MOVQ (instr_arg+40)(R12), R9
	MOVQ (R9), R9
	MOVQ instr_nr(R12), AX
	MOVQ (AX), AX
	SYSCALL
	MOVQ AX, (R13)
	JMP  advance

load:
	MOVQ (BX), BX
	MOVQ BX, (R13)
	JMP  advance

store:
	MOVQ (R13), R13
	MOVQ BX, (R13)
	JMP  advance

add:
	ADDQ BX, (R13)
	JMP  advance

threadLoad: // MOVQ FS:0, BX
	BYTE $0x64; BYTE $0x48; BYTE $0x8B; BYTE $0x1C; BYTE $0x25; LONG $0
	MOVQ BX, (R13)

advance:
	ADDQ $instr__size, R12
	JMP  next

jumpEqual:
	MOVQ (instr_arg+8)(R12), CX
	CMPQ BX, (CX)
	JNE  advance
	MOVQ R13, R12
	JMP  next
