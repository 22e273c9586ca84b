package shell

import (
	"bytes"
	"fmt"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// Names of commands that only adapt makes. They can be seen in a trace by set -x
// and where a function is printed, and nowhere else.
const (
	cmdBackground  = "__sh_background"  // SOURCE "$@": run SOURCE as a job
	cmdExec        = "__sh_exec"        // COMMAND...: become COMMAND
	cmdUnsupported = "__sh_unsupported" // WHAT: say that it is, and fail
	cmdStatus      = "__sh_status"      // N: set $?
)

// adapt changes statements in place to what the interpreter can do, so that
//
//   - a background job is a process: the interpreter has threads for them, which
//     have no pid, and see variables change that were set after they started;
//   - exec outside of a subshell becomes the program;
//   - $0 is known in single statements, and $$ in jobs;
//   - exec >FILE lasts;
//   - the last part of a pipeline has variables of its own, as the others have
//     and as in bash: two parts that run at once must not write the same ones;
//   - what the interpreter would panic at is a message.
func (s *shell) adapt(stmts []*syntax.Stmt) {
	for _, stmt := range stmts {
		s.adaptNode(stmt, false)
	}
}

// adaptNode works on everything below node. sub says that it runs in a subshell.
func (s *shell) adaptNode(node syntax.Node, sub bool) {
	syntax.Walk(node, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.Stmt:
			return !s.adaptStmt(n)
		case *syntax.ParamExp:
			if name := specials[n.Param.Value]; name != "" {
				n.Param.Value, n.Short = name, false
			}
		case *syntax.FuncDecl:
			s.mu.Lock()
			s.declared[n.Name.Value] = true
			s.mu.Unlock()
		case *syntax.CallExpr:
			if !sub && len(n.Args) > 1 && n.Args[0].Lit() == "exec" {
				n.Args[0] = literal(cmdExec)
			}
		case *syntax.Subshell:
			return s.adaptSub(sub, n.Stmts...)
		case *syntax.CmdSubst:
			return s.adaptSub(sub, n.Stmts...)
		case *syntax.ProcSubst:
			return s.adaptSub(sub, n.Stmts...)
		case *syntax.BinaryCmd:
			if n.Op == syntax.Pipe || n.Op == syntax.PipeAll {
				s.adaptNode(n.X, true)
				s.adaptNode(n.Y, true)
				ownVariables(n.Y)
				return false
			}
		}
		return true
	})
}

var specials = map[string]string{"0": argv0, "$": ownPID}

// adaptText is for source that the interpreter parses itself.
func (s *shell) adaptText(text string) string {
	file, err := syntax.NewParser().Parse(strings.NewReader(text), "")
	if err != nil {
		return text // it says so itself
	}
	s.adapt(file.Stmts)
	adapted := source(file)
	// Not all that can be parsed is printed so that it can be: 0(){ }
	if _, err := syntax.NewParser().Parse(strings.NewReader(adapted), ""); err != nil {
		return text
	}
	return adapted
}

// adaptSub works on a subshell's statements and says that no more is to be done.
// Walk itself goes on where the state is the same.
func (s *shell) adaptSub(sub bool, stmts ...*syntax.Stmt) (walkOn bool) {
	if sub {
		return true
	}
	for _, stmt := range stmts {
		s.adaptNode(stmt, true)
	}
	return false
}

// adaptStmt replaces a statement that cannot run as it is.
func (s *shell) adaptStmt(stmt *syntax.Stmt) (replaced bool) {
	for _, r := range stmt.Redirs {
		if r.Op == syntax.ClbOut { // as there is no noclobber
			r.Op = syntax.RdrOut
		}
		if what := unsupported(r); what != "" {
			replace(stmt, literal(cmdUnsupported), quoted(what))
			return true
		}
	}
	if call, ok := stmt.Cmd.(*syntax.CallExpr); ok && len(call.Args) == 1 && call.Args[0].Lit() == "exec" {
		for _, r := range stmt.Redirs {
			if r.Hdoc == nil && r.Op != syntax.WordHdoc && r.Op != syntax.DplIn && r.Op != syntax.DplOut {
				r.Word = &syntax.Word{Parts: append([]syntax.WordPart{&syntax.Lit{Value: keptFile}}, r.Word.Parts...)}
			}
		}
	}
	switch {
	case stmt.Coprocess:
		replace(stmt, literal(cmdUnsupported), quoted("coproc"))
		return true
	case stmt.Background:
		inner := *stmt
		inner.Background, inner.Comments = false, nil
		replace(stmt, literal(cmdBackground), quoted(source(&inner)),
			&syntax.Word{Parts: []syntax.WordPart{&syntax.DblQuoted{Parts: []syntax.WordPart{
				&syntax.ParamExp{Short: true, Param: &syntax.Lit{Value: "@"}},
			}}}})
		return true
	}
	return false
}

// unsupported names a redirection that the interpreter panics at.
func unsupported(r *syntax.Redirect) string {
	if r.N != nil && r.N.Value != "0" && r.N.Value != "1" && r.N.Value != "2" {
		return fmt.Sprintf("redirection of descriptor %s", r.N.Value)
	}
	switch r.Op {
	case syntax.DplOut:
		if to := r.Word.Lit(); to != "1" && to != "2" && to != "-" {
			return ">& to other than 1, 2 or -"
		}
	case syntax.DplIn:
		if r.Word.Lit() != "-" {
			return "<& from other than -"
		}
	case syntax.RdrInOut:
		return "<>"
	}
	return ""
}

// ownVariables puts a compound command, or one that sets variables, into a
// subshell.
func ownVariables(stmt *syntax.Stmt) {
	switch c := stmt.Cmd.(type) {
	case *syntax.Subshell, nil:
		return
	case *syntax.CallExpr:
		if len(c.Args) == 0 || c.Args[0].Lit() != "read" {
			return
		}
	}
	inner := *stmt
	inner.Negated, inner.Redirs, inner.Comments = false, nil, nil
	stmt.Cmd = &syntax.Subshell{Stmts: []*syntax.Stmt{&inner}}
}

func replace(stmt *syntax.Stmt, args ...*syntax.Word) {
	*stmt = syntax.Stmt{Position: stmt.Position, Semicolon: stmt.Semicolon, Cmd: &syntax.CallExpr{Args: args}}
}

func literal(text string) *syntax.Word {
	return &syntax.Word{Parts: []syntax.WordPart{&syntax.Lit{Value: text}}}
}

func quoted(text string) *syntax.Word {
	w := &syntax.Word{}
	for i, part := range strings.Split(text, "'") {
		if i > 0 {
			w.Parts = append(w.Parts, &syntax.DblQuoted{Parts: []syntax.WordPart{&syntax.Lit{Value: "'"}}})
		}
		w.Parts = append(w.Parts, &syntax.SglQuoted{Value: part})
	}
	return w
}

// quote makes one word of text for source that is parsed again.
func quote(text string) string {
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// source prints a node as it can be parsed.
func source(node syntax.Node) string {
	var b bytes.Buffer
	syntax.NewPrinter().Print(&b, node) // a Buffer takes all
	return b.String()
}
