//! scratch
#[path = "../tests/sim/mod.rs"]
mod sim;
use sim::fleet::Fleet;
fn main() {
    let args: Vec<f64> = std::env::args().skip(1).map(|a| a.parse().unwrap()).collect();
    let seeds = args[0] as u64;
    let mut k = [0.0; 12];
    if let Ok(v) = std::env::var("K") {
        for (i, x) in v.split(',').enumerate() {
            k[i] = x.parse().unwrap();
        }
    }

    for &lambda in &args[1..] {
        print!("l={lambda:4} ");
        for (name, cache, ratio) in
            [("2%", 8, 10.0), ("5%", 20, 10.0), ("25%", 100, 10.0), ("2%eq", 8, 1.0)]
        {
            let (mut f, mut m, mut w, mut wx) = (0.0, 0.0, 0.0, 0.0f64);
            let n = seeds as f64;
            for seed in 0..seeds {
                let s = Fleet { ratio, ..Fleet::new(seed, cache, lambda) }.run();
                f += s.fetches_per_chunk / n;
                m += s.median / n;
                w += s.worst / n;
                wx = wx.max(s.worst);
                if std::env::var("WHO").is_ok() && cache == 20 {
                    let plan = Fleet { ratio, ..Fleet::new(seed, cache, lambda) }.plan();
                    let mut v: Vec<(f64, f64)> = s
                        .outcome
                        .stretch
                        .iter()
                        .zip(&plan.peers)
                        .filter_map(|(s, p)| Some(((*s)?, p.down_rate / sim::fleet::RATE)))
                        .collect();
                    v.sort_by(|a, b| b.0.total_cmp(&a.0));
                    println!("{:.2?}", &v[..6]);
                }
            }
            print!("| {name} {f:.2} {m:.2} {w:.2} ({wx:.2}) ");
        }
        println!();
    }
}
