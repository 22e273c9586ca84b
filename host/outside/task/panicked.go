package task

// Panicked says what made the kernel panic, as "sh:91 in sysrq_handle_crash", by the CPU
// that is still in panic (kernel/panic.c); "" if there is none.
func (t *Tasks) Panicked() string {
	for _, c := range t.CPUs {
		s, err := t.CPUStack(c.ID)
		if err != nil {
			continue
		}
		for i, f := range s.Frames {
			if f.Base() != "panic" || i+1 == len(s.Frames) {
				continue
			}
			s.Frames = s.Frames[i+1:]
			place := (&blamer{t: t}).innermost(s)
			if one := t.Current(c.ID); one != nil {
				return who(one) + " in " + place
			}
			return place
		}
	}
	return ""
}
