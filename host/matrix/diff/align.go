package diff

// Costs of laying two things side by side, and of leaving one alone.
const (
	same    = 0
	near    = 1
	alone   = 1
	farther = -1 // they are never side by side
)

// align lays two sequences side by side at the least cost (Needleman and Wunsch):
// pairs of places, in order, with -1 for nothing. cost is same, near or farther.
func align(n, m int, cost func(i, j int) int) (pairs [][2]int) {
	// best[i][j] is what it costs from i and j on.
	best := make([][]int32, n+1)
	for i := range best {
		best[i] = make([]int32, m+1)
	}
	for i := n; i >= 0; i-- {
		for j := m; j >= 0; j-- {
			switch {
			case i == n:
				best[i][j] = int32(m-j) * alone
				continue
			case j == m:
				best[i][j] = int32(n-i) * alone
				continue
			}
			b := min(best[i+1][j], best[i][j+1]) + alone
			if c := cost(i, j); c != farther {
				b = min(b, best[i+1][j+1]+int32(c))
			}
			best[i][j] = b
		}
	}
	for i, j := 0, 0; i < n || j < m; {
		if i < n && j < m {
			if c := cost(i, j); c != farther && best[i][j] == best[i+1][j+1]+int32(c) {
				pairs = append(pairs, [2]int{i, j})
				i, j = i+1, j+1
				continue
			}
		}
		if i < n && best[i][j] == best[i+1][j]+alone {
			pairs = append(pairs, [2]int{i, -1})
			i++
		} else {
			pairs = append(pairs, [2]int{-1, j})
			j++
		}
	}
	return pairs
}
