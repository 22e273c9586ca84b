// Prints three states that nobody is in.
package main

import (
	"fmt"
	"os"
)

func main() {
	for i, state := range "STZ" {
		fmt.Printf("%d %c\n", os.Getpid()+5+i, state)
	}
}
