// Prints a number and asks for nothing.
package main

import (
	"fmt"
	"os"
)

func main() { fmt.Println("worker", os.Getpid()+5) }
