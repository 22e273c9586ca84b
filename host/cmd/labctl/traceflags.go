package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"labctl/host/trace/plan"
)

// eventFlags are --event in their order, each with the --filter after it.
type eventFlags []plan.Event

func (e *eventFlags) String() string { return "" }
func (e *eventFlags) Type() string   { return "SYSTEM:EVENT" }

func (e *eventFlags) Set(s string) error {
	for _, name := range strings.Split(s, ",") {
		*e = append(*e, plan.Event{Name: name})
	}
	return nil
}

type filterFlag eventFlags

func (f *filterFlag) String() string { return "" }
func (f *filterFlag) Type() string   { return "EXPR" }

func (f *filterFlag) Set(s string) error {
	n := len(*f)
	if n == 0 {
		return errors.New("it is for the --event before it, and there is none")
	}
	if (*f)[n-1].Filter != "" {
		return fmt.Errorf("event %s has one already", (*f)[n-1].Name)
	}
	if strings.ContainsAny(s, "\n\x00") || s == "" {
		return errors.New("want one line, as in events/SYSTEM/EVENT/filter")
	}
	(*f)[n-1].Filter = s
	return nil
}

// size is a number of bytes with K, M or G behind it, of 1024 each.
type size int64

func (s *size) String() string {
	if *s == 0 {
		return ""
	}
	return strconv.FormatInt(int64(*s), 10)
}
func (s *size) Type() string { return "SIZE" }

func (s *size) Set(text string) error {
	digits, shift := strings.TrimSuffix(strings.ToUpper(text), "B"), 0
	if i := strings.IndexAny(digits, "KMG"); i >= 0 && i == len(digits)-1 {
		shift = 10 * (1 + strings.IndexByte("KMG", digits[i]))
		digits = digits[:i]
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n <= 0 || n > math.MaxInt64>>shift {
		return errors.New("want a size as 512K, 64M or 2G")
	}
	*s = size(n << shift)
	return nil
}
