"""`moedge bundle`: signed releases, their store on a board, and updates that count once the model has answered."""
