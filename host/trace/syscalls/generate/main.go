// Generate writes names.tsv, the numbers of system calls on Linux's architectures, out
// of the constants of golang.org/x/sys/unix, which are made of the kernel's headers.
package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// arches are the columns, by GOARCH. Those that differ in byte order alone share one.
var arches = []string{"amd64", "arm64", "arm", "386", "riscv64", "ppc64", "ppc", "s390x", "loong64", "mips64", "mips", "sparc64"}

// private are calls that an architecture has beside its table
// (arch/arm/include/uapi/asm/unistd.h).
var private = map[string]map[string]int{
	"arm": {"breakpoint": 0xf0001, "cacheflush": 0xf0002, "usr26": 0xf0003, "usr32": 0xf0004, "set_tls": 0xf0005, "get_tls": 0xf0006},
}

// notCalls are constants that name no call.
var notCalls = []string{"SYSCALL_MASK", "ARCH_SPECIFIC_SYSCALL"}

func main() {
	log.SetFlags(0)
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "golang.org/x/sys").Output()
	if err != nil {
		log.Fatalf("find golang.org/x/sys: %v", err)
	}
	numbers := map[string]map[string]int{} // name → architecture → number
	add := func(arch, name string, number int) {
		if numbers[name] == nil {
			numbers[name] = map[string]int{}
		}
		numbers[name][arch] = number
	}
	for _, arch := range arches {
		file := filepath.Join(strings.TrimSpace(string(out)), "unix", "zsysnum_linux_"+arch+".go")
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			log.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || len(spec.Values) != 1 {
				return true
			}
			value, ok := spec.Values[0].(*ast.BasicLit)
			name, sys := strings.CutPrefix(spec.Names[0].Name, "SYS_")
			if !ok || !sys || slices.Contains(notCalls, name) {
				return true
			}
			number, err := strconv.Atoi(value.Value)
			if err != nil {
				log.Fatalf("%s: %s: %v", file, name, err)
			}
			add(arch, strings.ToLower(name), number)
			return true
		})
		for name, number := range private[arch] {
			add(arch, name, number)
		}
	}
	names := make([]string, 0, len(numbers))
	for name := range numbers {
		names = append(names, name)
	}
	slices.Sort(names)
	var b bytes.Buffer
	fmt.Fprintf(&b, "name\t%s\n", strings.Join(arches, "\t"))
	for _, name := range names {
		b.WriteString(name)
		for _, arch := range arches {
			b.WriteByte('\t')
			if n, ok := numbers[name][arch]; ok {
				b.WriteString(strconv.Itoa(n))
			} else {
				b.WriteByte('-')
			}
		}
		b.WriteByte('\n')
	}
	if err := os.WriteFile("names.tsv", b.Bytes(), 0o644); err != nil {
		log.Fatal(err)
	}
}
