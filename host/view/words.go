package view

// The words of the renderers themselves.
var (
	wordMore    = Words{"%d more", "%d개 더"}
	wordTimes   = Words{"%d times", "%d번"}
	wordOnce    = Words{"once", "한 번"}
	wordBytes   = Words{"%d bytes", "%d바이트"}
	wordOffset  = Words{"OFFSET", "오프셋"}
	wordSize    = Words{"SIZE", "크기"}
	wordMember  = Words{"MEMBER", "멤버"}
	wordType    = Words{"TYPE", "타입"}
	wordLevel   = Words{"LEVEL", "단계"}
	wordBits    = Words{"BITS", "비트"}
	wordIndex   = Words{"INDEX", "인덱스"}
	wordEntry   = Words{"ENTRY", "항목"}
	wordNothing = Words{"nothing was seen", "본 것이 없습니다"}
	wordTask    = Words{"TASK", "태스크"}
	wordLife    = Words{"LIFE", "수명"}
	wordEnd     = Words{"END", "끝"}
	wordBy      = Words{"BY", "방법"}
	wordFlags   = Words{"FLAGS", "플래그"}
	wordYes     = Words{"yes", "예"}
	wordNo      = Words{"no", "아니요"}
	wordNone    = Words{"none", "없음"}
)

// legend has the states of timelines, in the order in which they are explained.
var legend = []struct {
	state State
	mark  rune
	says  Words
}{
	{Running, '█', Words{"runs", "실행 중"}},
	{Alive, '▓', Words{"lives", "살아 있음"}},
	{Ready, '▒', Words{"waits for a CPU", "CPU를 기다림"}},
	{Asleep, '·', Words{"does not run (this kernel does not say why)", "실행되지 않음(이 커널은 이유를 알려 주지 않음)"}},
	{"S", '·', Words{"sleeps (S)", "잠듦(S)"}},
	{"D", '━', Words{"sleeps, uninterruptible (D)", "uninterruptible로 잠듦(D)"}},
	{"T", '‖', Words{"stopped (T)", "멈춤(T)"}},
	{"t", '‖', Words{"stopped by its tracer (t)", "추적기가 멈춤(t)"}},
	{"Z", 'z', Words{"ended, not yet waited for (Z)", "끝났지만 아직 거두지(wait) 않음(Z)"}},
	{"X", 'x', Words{"gone (X)", "사라짐(X)"}},
	{"I", '·', Words{"idle (I)", "쉼(I)"}},
}

// explain finds a state's mark and words; of states nobody has heard of, its letter.
func explain(s State) (rune, Words) {
	for _, l := range legend {
		if l.state == s {
			return l.mark, l.says
		}
	}
	for _, r := range s {
		return r, Same(string(s))
	}
	return '?', Same("?")
}
