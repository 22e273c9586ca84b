package raw

type printer struct{}
